"""More words for a text encoder: a token of its own for each word that its tokenizer reads in pieces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sanakit.text.config import TextConfig
from sanakit.text.words import tokens_per_word, words_of

if TYPE_CHECKING:
    from transformers import Gemma2Model, PreTrainedTokenizerBase

MOST_WORDS = 8192
"""New words at most, the most frequent first: beyond it most occur once, and one picture teaches no word."""


def new_words(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], most: int = MOST_WORDS) -> list[str]:
    """The words of the texts that are read in pieces: the most frequent first, then in the order of the alphabet."""
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
    """The configuration with a row for every id of the tokenizer."""
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
