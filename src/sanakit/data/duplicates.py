"""Copies inside a set and between two sets, without comparing all with all.

Two hashes of 64 bits that differ in at most d of them agree wholly in at least one of d + 1 bands of bits
(pigeonhole), so pictures are sorted by each band in turn and compared inside runs of equal bands. In runs longer than
`_WINDOW`, which thousands of nearly empty pictures make, each is compared with that many of its neighbours in the order
of all bits.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sanakit.base.errors import ConfigError, PictureError
from sanakit.data.items import PictureSet
from sanakit.data.looks import Looks, alike, same_pixels, small_pixels

DISTANCE = 4
"""Bits of 64 that may differ between copies."""

_WINDOW = 256
_BITS = 64
_FARTHEST = 15
_KEPT = 8192

Pairs = NDArray[np.int64]


def near_pairs(looks: Looks, distance: int = DISTANCE) -> Pairs:
    """The pairs [n, 2] (i < j, sorted) of pictures that may be copies. Raises ConfigError for a distance above 15."""
    if not 0 <= distance <= _FARTHEST:
        raise ConfigError(f"the distance between copies is 0 to {_FARTHEST} bits of {_BITS}, not {distance}.")
    index = np.flatnonzero(looks.known)
    edges = [_BITS * band // (distance + 1) for band in range(distance + 2)]
    found = [_pairs_of_band(looks, index, edges[n], edges[n + 1], distance) for n in range(distance + 1)]
    pairs = np.concatenate(found)
    return np.unique(np.sort(pairs, axis=1), axis=0)


def _pairs_of_band(looks: Looks, index: NDArray[np.int64], low: int, high: int, distance: int) -> Pairs:
    """Copies among pictures whose bits low to high agree."""
    codes = looks.across[index]
    band = (codes >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
    order = np.lexsort((looks.digest[index], looks.down[index], codes, band))
    index, band = index[order], band[order]
    place = np.arange(len(index))
    found = [np.empty((0, 2), dtype=np.int64)]
    for shift in range(1, min(_WINDOW, len(index) - 1) + 1):
        place = place[place + shift < len(index)]
        place = place[band[place] == band[place + shift]]
        if not len(place):
            break
        one, other = index[place], index[place + shift]
        if low:  # wholly equal hashes met in the first band
            differ = looks.across[one] != looks.across[other]
            one, other = one[differ], other[differ]
        same = alike(looks, one, other, distance)
        found.append(np.stack([one[same], other[same]], axis=1))
    return np.concatenate(found)


def confirmed(pairs: Pairs, ours: PictureSet, theirs: PictureSet | None = None) -> Pairs:
    """The pairs whose pictures are the same, looked at again; a picture that can't be read any more is none's copy.

    theirs: the set of the second of each pair, where it is another one.
    """
    one, other = _Small(ours), _Small(ours if theirs is None else theirs)
    kept = [pair for pair in pairs.tolist() if _same(one.get(pair[0]), other.get(pair[1]))]
    return np.array(kept, dtype=np.int64).reshape(-1, 2)


def _same(one: NDArray[np.int16] | None, other: NDArray[np.int16] | None) -> bool:
    return one is not None and other is not None and same_pixels(one, other)


class _Small:
    """Pictures of a set at 24 x 24, the last few thousand of them kept."""

    def __init__(self, pictures: PictureSet) -> None:
        self.get = lru_cache(maxsize=_KEPT)(self._get)
        self._pictures = pictures

    def _get(self, index: int) -> NDArray[np.int16] | None:
        try:
            return small_pixels(self._pictures.read(index))
        except PictureError:
            return None


def copies_of(pairs: Pairs) -> dict[int, int]:
    """Picture -> the first picture of its group that it is a copy of; the first ones themselves are left out."""
    first: dict[int, int] = {}

    def root(index: int) -> int:
        while first.get(index, index) != index:
            first[index] = first.get(first[index], first[index])
            index = first[index]
        return index

    for one, other in pairs.tolist():
        low, high = sorted((root(one), root(other)))
        first[high] = low
    return {index: root(index) for index in sorted(first) if root(index) != index}


def leaks_between(ours: Looks, theirs: Looks, distance: int = DISTANCE) -> Pairs:
    """The pairs [n, 2] of (ours, theirs) that may be copies."""
    pairs = near_pairs(ours.joined(theirs), distance)
    across: Pairs = pairs[(pairs[:, 0] < len(ours)) & (pairs[:, 1] >= len(ours))] - np.array([0, len(ours)])
    return across


def first_of_each(pairs: Pairs) -> Pairs:
    """Of the pairs [n, 2] with one first the first."""
    _, firsts = np.unique(pairs[:, 0], return_index=True)
    kept: Pairs = pairs[firsts]
    return kept
