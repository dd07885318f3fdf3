"""Selecting pictures by the scores of their captions; lists of keys are text files with one key per line.

Fine-tuning of SANA takes pictures whose CLIP score is above 25 (arXiv 2410.10629).
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from sanakit.base.errors import DataError
from sanakit.base.files import atomic_write
from sanakit.data.captions import decoded
from sanakit.data.items import Item, PictureSet


def best_score(item: Item) -> float | None:
    """Return the highest score of a picture's captions, None if none is scored."""
    scores = (caption.score for caption in item.captions)
    return max((score for score in scores if score is not None and math.isfinite(score)), default=None)


def keys_above(items: Iterable[Item], score: float) -> tuple[list[str], int]:
    """Return keys of the pictures with a caption that scores more than `score`, and how many pictures have no score."""
    best = {item.key: best_score(item) for item in items}
    above = [key for key, value in best.items() if value is not None and value > score]
    return above, sum(value is None for value in best.values())


def write_keys(path: Path, keys: Sequence[str]) -> list[str]:
    """Write a list; return the keys that can't be listed because they have a line break. Raises OutputError."""
    unlisted = [key for key in keys if "\n" in key or "\r" in key or not key.strip()]
    text = "".join(f"{key}\n" for key in keys if key not in unlisted)
    atomic_write(path, text.encode("utf-8", "surrogateescape"))
    return unlisted


def read_keys(path: Path) -> list[str]:
    """Read the keys of a list, each once; blank lines are ignored. Raises DataError if it can't be read."""
    try:
        text = decoded(path.read_bytes())
    except OSError as error:
        raise DataError(f"the list {path} can't be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"the list {path} is not UTF-8 at byte {error.start}: save it as UTF-8") from None
    lines = (line.rstrip("\r") for line in text.split("\n"))
    return list(dict.fromkeys(line for line in lines if line.strip()))


def indices_of(pictures: PictureSet, keys: Sequence[str], where: Path | str = "the list") -> tuple[int, ...]:
    """Return the indices of the listed pictures, in the order of the set.

    Raises DataError for an empty list, and for one with keys that the set does not hold.
    """
    index_of = {item.key: index for index, item in enumerate(pictures)}
    forms = {unicodedata.normalize("NFC", key): index for key, index in index_of.items()}
    found = {key: index_of.get(key, forms.get(unicodedata.normalize("NFC", key))) for key in keys}
    missing = [key for key, index in found.items() if index is None]
    if missing or not keys:
        what = (
            f"{len(missing)} pictures ({missing[0]!r} first) that are not in" if missing else "no picture of"
        )
        again = "`sanakit data filter` or `data check --write-keys`"
        raise DataError(f"{where} names {what} {pictures.path}: make it again with {again}")
    return tuple(sorted({index for index in found.values() if index is not None}))
