"""How well a text encoder reads the captions of a set: the words it knows, the captions it can tell apart.

A small encoder such as Toybox's gives two captions of words that it never learnt nearly the same states. A transformer
learns a few dozen of them by heart all the same; of many, most draw the same picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sanakit.base.precision import Precision
from sanakit.data.cache.encoders import text_encoder
from sanakit.text import is_closed, load_tokenizer, tokens_per_word
from sanakit.weights import ModelSpec

ALIKE = 0.98
"""Cosine of the mean states of two captions from which on they count as the same. By Toybox's encoder 0.7 % of 600 of
its own captions have another one above it, and none of those such as "a red cube"; of 600 names of emoji 86 % have, of
66 nouns 68 %, of 66 captions "a photo of a NOUN in the park" 97 %."""

_TOO_MANY = 0.25
"""Share of captions that have such a double from which on a set can't be learnt: far from 0.007, and from 0.68."""

_UNKNOWN = 0.05
"""Share of words in pieces from which on a small vocabulary is said not to know a set."""

_CAPTIONS, _TEXTS = 600, 20_000  # captions whose states are compared, and those whose words are counted
_SHOWN = 4
_BATCH = 16

ADVICE = (
    "train it with the transformer (text.train=true text.vocabulary=captions), "
    "or take that of another model (text.base=MODEL)"
)


@dataclass(frozen=True, kw_only=True)
class CaptionReading:
    """The result of `read_set`.

    Attributes:
        words: different ones in the captions. pieces: of them, those that are read in more than one token.
        tokens_per_word: mean over the words in pieces; 0 if there are none.
        examples: some words in pieces.
        closed: the vocabulary is so small that a word in pieces is a word that is not known.
        captions: whose states were compared. alike: of them, the share that have a double; None if not measured.
    """

    words: int
    pieces: int
    tokens_per_word: float
    examples: tuple[str, ...]
    closed: bool
    captions: int = 0
    alike: float | None = None

    @property
    def unfit(self) -> bool:
        """True if the encoder can't tell the captions apart, or knows too few of their words."""
        return self.closed and (self._blurred or self.pieces > _UNKNOWN * self.words)

    @property
    def _blurred(self) -> bool:
        return self.alike is not None and self.alike > _TOO_MANY

    def sentence(self) -> str:
        """Figures, verdict, and what to do."""
        return "; ".join(self._parts())

    def _parts(self) -> Iterator[str]:
        some = f" ({', '.join(self.examples)}{' ...' if self.pieces > len(self.examples) else ''})"
        each = f", {self.tokens_per_word:.1f} tokens each" if self.pieces else ""
        yield f"{self.pieces:,} of {self.words:,} words are read in pieces{each}{some if self.pieces else ''}"
        if self.alike is not None:
            yield (
                f"{self.alike:.0%} of {self.captions:,} captions have states that are nearly another's "
                f"(cosine above {ALIKE})"
            )
        if not self.closed:
            yield "a general vocabulary knows words in pieces, too, so its states are not compared"
        elif self._blurred:
            yield f"it hardly tells these captions apart: {ADVICE}"
        elif self.unfit:
            yield f"it does not know these words: {ADVICE}"
        else:
            yield "it knows these captions"

    def to_json(self) -> dict[str, Any]:
        """Return the figures."""
        return {
            "words": self.words, "in_pieces": self.pieces, "tokens_per_word": self.tokens_per_word,
            "closed": self.closed, "captions": self.captions, "alike": self.alike, "unfit": self.unfit,
        }  # fmt: skip


def read_set(spec: ModelSpec, captions: Sequence[str], precision: Precision) -> CaptionReading:
    """Measure how the text encoder of a model reads captions. Only a small one is loaded. Raises InputError."""
    tokenizer = load_tokenizer(spec.tokenizer_folder)
    distinct = sorted({caption.strip() for caption in captions} - {""})
    counts = tokens_per_word(tokenizer, _some(distinct, _TEXTS))
    pieces = [word for word, count in counts.items() if count > 1]
    found = CaptionReading(
        words=len(counts), pieces=len(pieces), closed=is_closed(tokenizer),
        tokens_per_word=sum(counts[word] for word in pieces) / max(1, len(pieces)),
        examples=tuple(pieces[:_SHOWN]),
    )  # fmt: skip
    if not found.closed or len(distinct) < 2:
        return found
    some = sorted(_some(distinct, _CAPTIONS), key=len)
    encode = text_encoder(spec, precision)
    states = [row for start in range(0, len(some), _BATCH) for row in encode(some[start : start + _BATCH])]
    return CaptionReading(**{**vars(found), "captions": len(some), "alike": share_alike(states)})


def share_alike(states: Sequence[Tensor]) -> float:
    """Return which share of captions has a mean state with a cosine above `ALIKE` to another's. states: [L, D] each."""
    pooled = functional.normalize(torch.stack([row.float().mean(dim=0) for row in states]), dim=-1)
    cosines = (pooled @ pooled.T).fill_diagonal_(-1.0)
    return float((cosines.amax(dim=1) > ALIKE).float().mean())


def _some(texts: Sequence[str], most: int) -> list[str]:
    """At most `count`, evenly over all."""
    step = max(1.0, len(texts) / most)
    return [texts[int(number * step)] for number in range(min(most, len(texts)))]
