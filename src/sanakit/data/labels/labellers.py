"""What labels pictures: a captioner writes texts, a scorer rates texts, and both become labellers of items.

Captioner and scorer are functions of pictures. Three modules make them: `vision` (models that `transformers` loads),
`open_clip` and `toybox` (the judge of the Toybox); `dense` makes detectors. A score is 100 x cosine, as CLIP score is
reported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from PIL import Image

from sanakit.data.items import Caption, Item

Captioner = Callable[[Sequence[Image.Image]], list[str]]
"""RGB pictures -> one caption of each."""

Scorer = Callable[[Sequence[Image.Image], Sequence[Sequence[str]]], list[list[float]]]
"""RGB pictures, and the captions of each -> their scores."""


@dataclass(frozen=True, kw_only=True)
class Detection:
    """A thing in a picture. name: of its class. box: left, top, right, bottom in pixels. score: 0..1."""

    name: str
    box: tuple[float, float, float, float]
    score: float


class Detector(Protocol):
    """What finds things in pictures.

    Attributes:
        names: of all classes that it knows.
    """

    names: frozenset[str]

    def __call__(self, pictures: Sequence[Image.Image]) -> list[list[Detection]]:
        """RGB pictures -> the things of each, however unsure."""


Labeller = Callable[[Sequence[Image.Image], Sequence[Item]], list[tuple[Caption, ...]]]
"""RGB pictures with their items -> the captions to write for each; none if the model had nothing to say."""


def captioning(captioner: Captioner, source: str) -> Labeller:
    """Make a labeller that writes one caption per picture under the name of its source."""

    def label(pictures: Sequence[Image.Image], items: Sequence[Item]) -> list[tuple[Caption, ...]]:
        texts = (" ".join(text.split()) for text in captioner(pictures))
        return [(Caption(text=text, source=source),) if text else () for text in texts]

    return label


def scoring(scorer: Scorer) -> Labeller:
    """Make a labeller that scores every caption of a picture."""

    def label(pictures: Sequence[Image.Image], items: Sequence[Item]) -> list[tuple[Caption, ...]]:
        scores = scorer(pictures, [[caption.text for caption in item.captions] for item in items])
        return [
            tuple(replace(caption, score=round(score, 3)) for caption, score in zip(item.captions, row, strict=True))
            for item, row in zip(items, scores, strict=True)
        ]  # fmt: skip

    return label


def lacks_caption(item: Item, source: str) -> bool:
    """Return whether a picture has no caption of this source yet."""
    return all(caption.source != source for caption in item.captions)


def lacks_score(item: Item) -> bool:
    """Return whether a picture has a caption without a score."""
    return any(caption.score is None for caption in item.captions)
