"""Choosing pictures by the scores of their captions, and lists of the chosen: text files with one key a line.

Fine-tuning of SANA takes pictures whose CLIP score is above 25 (arXiv 2410.10629).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from sanakit.base.errors import DataError
from sanakit.base.files import atomic_write
from sanakit.training.data.items import Item, PictureSet

__all__ = ["best_score", "keys_above", "places_of", "read_keys", "write_keys"]


def best_score(item: Item) -> float | None:
    """The highest score of a picture's captions, None where none is scored."""
    scores = (caption.score for caption in item.captions)
    return max((score for score in scores if score is not None and math.isfinite(score)), default=None)


def keys_above(items: Iterable[Item], score: float) -> tuple[list[str], int]:
    """The keys of the pictures with a caption that scores more than `score`, and how many pictures have no score."""
    best = {item.key: best_score(item) for item in items}
    above = [key for key, value in best.items() if value is not None and value > score]
    return above, sum(value is None for value in best.values())


def write_keys(path: Path, keys: Sequence[str]) -> None:
    """Write a list. Raises DataError for a key with a line break, OutputError where the file can't be written."""
    broken = next((key for key in keys if key.splitlines() != [key]), None)
    if broken is not None:
        raise DataError(f"the picture {broken!r} has a line break in its name and can't be listed: rename it")
    text = "".join(f"{key}\n" for key in keys)
    atomic_write(path, text.encode("utf-8", "surrogateescape"))


def read_keys(path: Path) -> list[str]:
    """The keys of a list, each once; blank lines are passed over. Raises DataError where it can't be read."""
    try:
        text = path.read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise DataError(f"the list {path} can't be read: {error.strerror or error}") from error
    return list(dict.fromkeys(line for line in text.splitlines() if line.strip()))


def places_of(pictures: PictureSet, keys: Sequence[str], where: Path | str = "the list") -> tuple[int, ...]:
    """The indices of the listed pictures, in the order of the set: what a run may use.

    Raises DataError for an empty list, and for one with keys that the set does not hold.
    """
    places = {item.key: index for index, item in enumerate(pictures)}
    missing = [key for key in keys if key not in places]
    if missing or not keys:
        what = (
            f"{len(missing)} pictures ({missing[0]!r} first) that are not in" if missing else "no picture of"
        )
        raise DataError(f"{where} names {what} {pictures.path}: make it again with `sanakit data filter`")
    return tuple(sorted(places[key] for key in keys))
