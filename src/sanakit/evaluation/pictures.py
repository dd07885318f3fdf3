"""Scores of pictures that are there, by the prompts that they carry."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from PIL import Image

from sanakit.base.errors import PictureError
from sanakit.data.labels.labellers import Scorer
from sanakit.evaluation.measures import CONFIDENT
from sanakit.pipeline.png import read_picture

_TOGETHER = 16  # pictures that are given to a scorer at once


@dataclass(frozen=True, kw_only=True)
class Prompted:
    """A picture and the prompt inside it."""

    path: Path
    prompt: str


@dataclass(frozen=True, kw_only=True)
class Scored(Prompted):
    """A picture with its score."""

    score: float


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A mean with its 95 % interval, from the standard error; the interval is None for a single picture."""

    mean: float
    half: float | None
    n: int

    def __str__(self) -> str:
        spread = "" if self.half is None else f" ± {self.half:.2f}"
        return f"{self.mean:.2f}{spread} of {self.n}"

    def to_json(self) -> dict[str, object]:
        """Return the mean, the bounds of its interval, and the number."""
        low, high = (None, None) if self.half is None else (self.mean - self.half, self.mean + self.half)
        return {"mean": self.mean, "low": low, "high": high, "n": self.n}


def find_pictures(folder: Path) -> tuple[list[Prompted], list[Path]]:
    """Return the PNG files under a folder that carry a prompt, by name, and those that don't; grids are of these.

    Raises PictureError if there is no folder, or no picture with a prompt in it.
    """
    if not folder.is_dir():
        raise PictureError(f"there is no folder at {folder}")
    found, without = [], []
    for path in sorted(folder.rglob("*.png")):
        try:
            record = read_picture(path)
        except PictureError:
            without.append(path)
            continue
        if record.grid:
            without.append(path)
        else:
            found.append(Prompted(path=path, prompt=record.request.prompt))
    if not found:
        raise PictureError(f"no PNG file under {folder} holds a prompt: give pictures that sanakit has drawn")
    return found, without


def score_pictures(pictures: Sequence[Prompted], scorer: Scorer) -> Iterator[Scored]:
    """Yield every picture with its score. Raises PictureError for a file that can't be read."""
    left = iter(pictures)
    for images in open_groups([one.path for one in pictures]):
        group = list(islice(left, len(images)))
        rows = scorer(images, [[one.prompt] for one in group])
        for one, row in zip(group, rows, strict=True):
            yield Scored(path=one.path, prompt=one.prompt, score=row[0])


def open_groups(paths: Sequence[Path]) -> Iterator[list[Image.Image]]:
    """Yield pictures as RGB, some at a time. Raises PictureError for a file that can't be read."""
    for start in range(0, len(paths), _TOGETHER):
        yield [_open(path) for path in paths[start : start + _TOGETHER]]


def mean_of(values: Sequence[float]) -> Mean:
    """Return the mean of one value or more with its interval."""
    n = len(values)
    mean = sum(values) / n
    if n == 1:
        return Mean(mean=mean, half=None, n=n)
    variance = sum((value - mean) ** 2 for value in values) / (n - 1)
    return Mean(mean=mean, half=CONFIDENT * math.sqrt(variance / n), n=n)


def mean_of_means(means: Sequence[Mean]) -> Mean:
    """Return the mean of independent means, each with the same weight; n is that of all their values."""
    halves = [one.half for one in means]
    known = [half for half in halves if half is not None]
    return Mean(
        mean=sum(one.mean for one in means) / len(means),
        half=math.hypot(*known) / len(means) if len(known) == len(means) else None,
        n=sum(one.n for one in means),
    )


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise PictureError(f"the picture {path} can't be read: {error}") from None
