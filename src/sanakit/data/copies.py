"""Copies inside a set and leaks from another, as faults in words."""

from __future__ import annotations

from collections.abc import Iterator

from sanakit.data.duplicates import confirmed, copies_of, first_of_each, leaks_between, near_pairs
from sanakit.data.items import Fault, Item, PictureSet
from sanakit.data.looks import Looks

__all__ = ["copies", "leaks"]


def copies(pictures: PictureSet, looks: Looks, distance: int) -> Iterator[Fault]:
    """Pictures that are there before. One with a caption of its own teaches something else and is no mere copy."""
    pairs = near_pairs(looks, distance)
    pairs = pairs[~looks.blank[pairs].any(axis=1)]  # those are a fault already
    for index, first in copies_of(confirmed(pairs, pictures)).items():
        one, other = pictures[index], pictures[first]
        exact = " byte by byte" if looks.digest[index] == looks.digest[first] else ""
        if _says_more(one, other):
            text = f"{one.key} is {other.key}{exact} with another caption"
            yield Fault(one.key, "recaptioned", text)
        else:
            yield Fault(one.key, "duplicate", f"{one.key} is {other.key}{exact}")


def leaks(
    pictures: PictureSet, looks: Looks, others: PictureSet, theirs: Looks, distance: int
) -> Iterator[Fault]:
    """Pictures that are in another set, too, whatever their captions."""
    pairs = confirmed(leaks_between(looks, theirs, distance), pictures, others)
    for index, other in first_of_each(pairs).tolist():
        exact = " byte by byte" if looks.digest[index] == theirs.digest[other] else ""
        text = f"{pictures[index].key} is {others[other].key} of {others.path}{exact}"
        yield Fault(pictures[index].key, "leak", text)


def _says_more(item: Item, first: Item) -> bool:
    """Whether a picture has a caption that its copy has not."""
    return not {caption.text for caption in item.captions} <= {caption.text for caption in first.captions}
