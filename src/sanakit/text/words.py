"""Which words a tokenizer reads whole, and which in pieces.

A model with a small vocabulary of its own, such as Toybox, has learnt what its words mean; any other word reaches it as
letters and syllables that mean nothing to it. A general vocabulary reads rare words in pieces as well, and knows them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CLOSED = 16_384
"""A vocabulary below this is a word list of its own: Toybox has 460 tokens, general ones have 30,000 (BERT) to 256,000
(Gemma)."""

_LETTERS = r"(?:\w[\u0300-\u036f]*)+"  # with marks that no letter is composed with
_WORD = re.compile(rf"{_LETTERS}(?:['’]{_LETTERS})*")


def is_closed(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the vocabulary is so small that words which it reads in pieces are words that the model doesn't know."""
    return len(tokenizer.get_vocab()) < CLOSED


def words_of(text: str) -> list[str]:
    """The words of a text in their order, in lower case."""
    return [match[0].lower() for match in _WORD.finditer(_composed(text))]


def tokens_per_word(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> dict[str, int]:
    """Every word of the texts, in lower case, and by how many tokens it is read where it is read by the most."""
    found: dict[str, int] = {}
    for text in texts:
        for word, count in _counts(tokenizer, text):
            found[word] = max(found.get(word, 0), count)
    return found


def words_in_pieces(tokenizer: PreTrainedTokenizerBase, text: str) -> list[str]:
    """The words of a prompt that are read in more than one token, each once, in lower case and in their order."""
    return [word for word, count in tokens_per_word(tokenizer, [text]).items() if count > 1]


def _counts(tokenizer: PreTrainedTokenizerBase, text: str) -> Iterator[tuple[str, int]]:
    """Each word, and the tokens that share a letter with it; a space before it is no letter."""
    text = _composed(text)
    spans = [(start, end) for start, end in _spans(tokenizer, text) if text[start:end].strip()]
    for match in _WORD.finditer(text):
        yield (
            match[0].lower(),
            sum(max(start, match.start()) < min(end, match.end()) for start, end in spans),
        )


def _composed(text: str) -> str:
    """Letters and accents as one; in lower case where that has another number of letters, so that places agree."""
    found = unicodedata.normalize("NFC", text)
    lowered = found.lower()
    return found if len(lowered) == len(found) else lowered


def _spans(tokenizer: PreTrainedTokenizerBase, text: str) -> list[tuple[int, int]]:
    return [(start, end) for start, end in tokenizer(text, return_offsets_mapping=True)["offset_mapping"]]
