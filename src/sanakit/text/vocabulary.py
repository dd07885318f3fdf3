"""The words of a tokenizer: which it reads whole, which in pieces, and how it learns more.

A model with a small vocabulary of its own, such as Toybox, has learnt what its words mean; any other word reaches it as
letters and syllables that mean nothing to it. A general vocabulary reads rare words in pieces as well, and knows them.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sanakit.text.config import TextConfig

if TYPE_CHECKING:
    from transformers import Gemma2Model, PreTrainedTokenizerBase

CLOSED = 16_384
"""A smaller vocabulary is a word list of its own: Toybox has 626 tokens, general ones have 30,000 (BERT) to 256,000
(Gemma)."""

_LETTERS = r"(?:\w[\u0300-\u036f]*)+"  # with marks that no letter is composed with
_WORD = re.compile(rf"{_LETTERS}(?:['’]{_LETTERS})*")


def is_closed(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether the vocabulary is so small that the model doesn't know the words that are read in pieces."""
    return len(tokenizer.get_vocab()) < CLOSED


def words_of(text: str) -> list[str]:
    """Return the words of a text in their order, in lower case."""
    return [match[0].lower() for match in _WORD.finditer(_composed(text))]


def tokens_per_word(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> dict[str, int]:
    """Return every word of the texts, in lower case -> the largest number of tokens that it is read in."""
    found: dict[str, int] = {}
    for text in texts:
        for word, count in _counts(tokenizer, text):
            found[word] = max(found.get(word, 0), count)
    return found


def words_in_pieces(tokenizer: PreTrainedTokenizerBase, text: str) -> list[str]:
    """Return the words of a prompt that are read in more than one token, each once, in lower case, in order."""
    return [word for word, count in tokens_per_word(tokenizer, [text]).items() if count > 1]


def _counts(tokenizer: PreTrainedTokenizerBase, text: str) -> Iterator[tuple[str, int]]:
    """Yield each word, and the tokens that share a letter with it; a space before it isn't a letter."""
    text = _composed(text)
    spans = [(start, end) for start, end in _spans(tokenizer, text) if text[start:end].strip()]
    for match in _WORD.finditer(text):
        yield (
            match[0].lower(),
            sum(max(start, match.start()) < min(end, match.end()) for start, end in spans),
        )


def _composed(text: str) -> str:
    """Compose letters and accents; in lower case if that changes the number of letters, so that offsets agree."""
    found = unicodedata.normalize("NFC", text)
    lowered = found.lower()
    return found if len(lowered) == len(found) else lowered


def _spans(tokenizer: PreTrainedTokenizerBase, text: str) -> list[tuple[int, int]]:
    return [(start, end) for start, end in tokenizer(text, return_offsets_mapping=True)["offset_mapping"]]


MOST_WORDS = 8192
"""New words at most, the most frequent first: beyond it most occur once, and one image doesn't teach a word."""


def new_words(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], most: int = MOST_WORDS) -> list[str]:
    """Return the words of the texts that are read in pieces, the most frequent first, then in alphabetical order."""
    listed = list(texts)
    counts = Counter(word for text in listed for word in words_of(text))
    pieces = tokens_per_word(tokenizer, listed)
    unknown = [word for word in counts if pieces[word] > 1]
    return sorted(unknown, key=lambda word: (-counts[word], word))[:most]


def add_words(tokenizer: PreTrainedTokenizerBase, words: Iterable[str]) -> int:
    """Give each word the next free id, in place; returns how many are new. The space before a word belongs to it."""
    from tokenizers import AddedToken

    tokens = [
        AddedToken(word, single_word=True, lstrip=True, normalized=True, special=False) for word in words
    ]
    return int(tokenizer.add_tokens(tokens))


def widened(config: TextConfig, tokenizer: PreTrainedTokenizerBase) -> TextConfig:
    """Return the configuration with a row for every id of the tokenizer."""
    rows = 1 + max(tokenizer.get_vocab().values())
    return {**config, "vocab_size": max(int(config["vocab_size"]), rows)}


@torch.no_grad()
def widen(model: Gemma2Model, rows: int, generator: torch.Generator) -> None:
    """Add rows to the embedding, in place, up to `rows`: drawn with the deviation of those that are there."""
    old = model.embed_tokens.weight
    missing = rows - old.shape[0]
    if missing <= 0:
        return
    fresh = torch.randn(missing, old.shape[1], generator=generator) * float(old.float().std())
    model.embed_tokens.weight = nn.Parameter(_stacked(old, fresh), requires_grad=old.requires_grad)
    model.embed_tokens.num_embeddings = rows
    model.config.vocab_size = rows
    model.vocab_size = rows


def _stacked(old: Tensor, fresh: Tensor) -> Tensor:
    return torch.cat([old, fresh.to(device=old.device, dtype=old.dtype)])
