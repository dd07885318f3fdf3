"""Duplicates inside a set and leaks between two sets, without comparing every pair.

Each picture is hashed to 216 bytes, enough to find its copies, resized or saved again, among millions. Difference hash:
8 x 8 bits that say where brightness rises, once to the right and once downwards (dHash, N. Krawetz, "Kind of Like
That", 2013). Pictures of the same brightness may still differ in colour: 8 x 8 mean colours decide. That finds
candidates: small flat pictures, such as two faces that differ in the mouth, share all of it. `same_pixels` decides, on
the pictures themselves at 24 x 24.

Two hashes of 64 bits that differ in at most d of them agree entirely in at least one of d + 1 bands of bits
(pigeonhole), so pictures are sorted by each band in turn and compared inside runs of equal bands. In runs longer than
`_WINDOW`, which thousands of nearly empty pictures make, each is compared with that many of its neighbours in the order
of all bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sanakit.base.errors import ConfigError, PictureError
from sanakit.data.image import thumbnail
from sanakit.data.items import Fault, Item, PictureSet

_SIDE = 72  # divides into 8 and into 9 blocks
_RISE = 1.0  # of 255: below it brightness counts as level, so that JPEG noise in flat areas gives no bits
_COLOUR = 24  # of 255: the largest difference of mean colours between copies
_FLAT = 2.0  # of 255: a picture whose blocks differ by no more is of a single colour
_GRID = 24
_GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_FARTHEST_GREY = 24.0
"""Of 255, in brightness: copies of emoji of 72 px reach 15 (JPEG of quality 50), other hands of a clock 41."""

_FARTHEST_COLOUR = 80.0  # of 255; copies reach 62, because JPEG halves the resolution of colour

DISTANCE = 4
"""Bits of 64 that may differ between copies."""

_WINDOW = 256
_BITS = 64
_MOST_DISTANCE = 15
_KEPT = 8192

Pairs = NDArray[np.int64]


@dataclass(frozen=True)
class ImageHash:
    """A digest of the file, both dHashes, mean colours uint8 [8, 8, 3], and whether there is only one colour."""

    digest: int
    across: int
    down: int
    colours: NDArray[np.uint8]
    blank: bool = False


class ImageHashes:
    """The hashes of many pictures, as arrays; a picture that could not be read has none."""

    def __init__(self, count: int) -> None:
        self.known = np.zeros(count, dtype=bool)
        self.digest = np.zeros(count, dtype=np.uint64)
        self.across = np.zeros(count, dtype=np.uint64)
        self.down = np.zeros(count, dtype=np.uint64)
        self.colours = np.zeros((count, 8, 8, 3), dtype=np.uint8)
        self.blank = np.zeros(count, dtype=bool)

    def __len__(self) -> int:
        return len(self.known)

    def put(self, index: int, image_hash: ImageHash) -> None:
        """Store the hash of picture `index`."""
        self.known[index] = True
        self.digest[index], self.across[index], self.down[index] = (
            image_hash.digest,
            image_hash.across,
            image_hash.down,
        )
        self.colours[index], self.blank[index] = image_hash.colours, image_hash.blank

    def joined(self, other: ImageHashes) -> ImageHashes:
        """Return ours followed by the other's."""
        both = ImageHashes(0)
        for name in ("known", "digest", "across", "down", "colours", "blank"):
            setattr(both, name, np.concatenate([getattr(self, name), getattr(other, name)]))
        return both


def hash_image(data: bytes) -> ImageHash:
    """Hash an encoded picture, decoding all of it. Raises PictureError."""
    pixels = np.asarray(thumbnail(data, (_SIDE, _SIDE)), dtype=np.float32)
    grey = pixels @ _GREY
    return ImageHash(
        digest=int.from_bytes(hashlib.blake2b(data, digest_size=8).digest()),
        across=_bits(np.diff(_blocks(grey, 8, 9), axis=1)),
        down=_bits(np.diff(_blocks(grey, 9, 8), axis=0)),
        colours=_blocks(pixels, 8, 8).round().astype(np.uint8),
        blank=bool((pixels.max(axis=(0, 1)) - pixels.min(axis=(0, 1)) <= _FLAT).all()),
    )


def small_pixels(data: bytes) -> NDArray[np.int16]:
    """Resize the picture to [24, 24, 3]. Raises PictureError."""
    smooth = Image.Resampling.BILINEAR  # block means would not match between pictures of different sizes
    return np.asarray(thumbnail(data, (_GRID, _GRID), smooth), dtype=np.int16)


def same_pixels(one: NDArray[np.int16], other: NDArray[np.int16]) -> bool:
    """Return whether two pictures (of `small_pixels`) differ by no more than resizing and saving again does."""
    difference = (one - other).astype(np.float32)
    brightness = np.abs(difference @ _GREY)
    return bool(brightness.max() <= _FARTHEST_GREY and np.abs(difference).max() <= _FARTHEST_COLOUR)


def similar(
    hashes: ImageHashes, one: NDArray[np.int64], other: NDArray[np.int64], distance: int
) -> NDArray[np.bool_]:
    """Return which pairs are copies: at most `distance` bits of 64 differ, twice that downwards."""
    across = np.bitwise_count(hashes.across[one] ^ hashes.across[other]) <= distance
    found: NDArray[np.bool_] = across & (
        np.bitwise_count(hashes.down[one] ^ hashes.down[other]) <= 2 * distance
    )
    rest = np.flatnonzero(found)
    colours = (hashes.colours[index[rest]].astype(np.int16) for index in (one, other))
    found[rest] = np.abs(next(colours) - next(colours)).max(axis=(1, 2, 3), initial=0) <= _COLOUR
    return found


def _blocks(values: NDArray[np.float32], rows: int, columns: int) -> NDArray[np.float32]:
    """Means over a grid of blocks: [72, 72, ...] -> [rows, columns, ...]."""
    split = values.reshape(rows, _SIDE // rows, columns, _SIDE // columns, *values.shape[2:])
    means: NDArray[np.float32] = split.mean(axis=(1, 3))
    return means


def _bits(rises: NDArray[np.float32]) -> int:
    return int.from_bytes(np.packbits(rises > _RISE).tobytes())


def near_pairs(hashes: ImageHashes, distance: int = DISTANCE) -> Pairs:
    """Return pairs [n, 2] (i < j, sorted) that may be copies. Raises ConfigError for a distance above 15."""
    if not 0 <= distance <= _MOST_DISTANCE:
        raise ConfigError(
            f"the distance between copies is 0 to {_MOST_DISTANCE} bits of {_BITS}, not {distance}"
        )
    index = np.flatnonzero(hashes.known)
    edges = [_BITS * band // (distance + 1) for band in range(distance + 2)]
    found = [_pairs_of_band(hashes, index, edges[n], edges[n + 1], distance) for n in range(distance + 1)]
    pairs = np.concatenate(found)
    return np.unique(np.sort(pairs, axis=1), axis=0)


def _pairs_of_band(
    hashes: ImageHashes, index: NDArray[np.int64], low: int, high: int, distance: int
) -> Pairs:
    """Return copies among pictures whose bits low to high agree."""
    codes = hashes.across[index]
    band = (codes >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
    order = np.lexsort((hashes.digest[index], hashes.down[index], codes, band))
    index, band = index[order], band[order]
    position = np.arange(len(index))
    found = [np.empty((0, 2), dtype=np.int64)]
    for shift in range(1, min(_WINDOW, len(index) - 1) + 1):
        position = position[position + shift < len(index)]
        position = position[band[position] == band[position + shift]]
        if not len(position):
            break
        one, other = index[position], index[position + shift]
        if low:  # equal hashes were compared in the first band
            differ = hashes.across[one] != hashes.across[other]
            one, other = one[differ], other[differ]
        same = similar(hashes, one, other, distance)
        found.append(np.stack([one[same], other[same]], axis=1))
    return np.concatenate(found)


def confirmed(pairs: Pairs, ours: PictureSet, theirs: PictureSet | None = None) -> Pairs:
    """Return the pairs whose pictures are the same, compared again by pixels; unreadable pictures are not copies.

    theirs: the set of the second of each pair, if it is another one.
    """
    one, other = _Small(ours), _Small(ours if theirs is None else theirs)
    kept = [pair for pair in pairs.tolist() if _same(one.get(pair[0]), other.get(pair[1]))]
    return np.array(kept, dtype=np.int64).reshape(-1, 2)


def _same(one: NDArray[np.int16] | None, other: NDArray[np.int16] | None) -> bool:
    return one is not None and other is not None and same_pixels(one, other)


class _Small:
    """Pictures of a set at 24 x 24; the last few thousand are cached."""

    def __init__(self, pictures: PictureSet) -> None:
        self.get = lru_cache(maxsize=_KEPT)(self._get)
        self._pictures = pictures

    def _get(self, index: int) -> NDArray[np.int16] | None:
        try:
            return small_pixels(self._pictures.read(index))
        except PictureError:
            return None


def copies_of(pairs: Pairs) -> dict[int, int]:
    """Picture -> the first picture of its group of copies; the first ones themselves are left out."""
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


def leaks_between(ours: ImageHashes, theirs: ImageHashes, distance: int = DISTANCE) -> Pairs:
    """Return the pairs [n, 2] of (ours, theirs) that may be copies."""
    pairs = near_pairs(ours.joined(theirs), distance)
    across: Pairs = pairs[(pairs[:, 0] < len(ours)) & (pairs[:, 1] >= len(ours))] - np.array([0, len(ours)])
    return across


def first_of_each(pairs: Pairs) -> Pairs:
    """Of the pairs [n, 2] that share their first picture, keep one."""
    _, firsts = np.unique(pairs[:, 0], return_index=True)
    kept: Pairs = pairs[firsts]
    return kept


def duplicates_in(pictures: PictureSet, hashes: ImageHashes, distance: int) -> Iterator[Fault]:
    """Faults for pictures that occur before; one with a caption of its own is `recaptioned`, not a mere duplicate."""
    pairs = near_pairs(hashes, distance)
    pairs = pairs[~hashes.blank[pairs].any(axis=1)]  # those are reported already
    for index, first in copies_of(confirmed(pairs, pictures)).items():
        one, other = pictures[index], pictures[first]
        exact = " byte by byte" if hashes.digest[index] == hashes.digest[first] else ""
        if _has_more_captions(one, other):
            text = f"{one.key} is {other.key}{exact} with another caption"
            yield Fault(one.key, "recaptioned", text)
        else:
            yield Fault(one.key, "duplicate", f"{one.key} is {other.key}{exact}")


def leaks_in(
    pictures: PictureSet, hashes: ImageHashes, others: PictureSet, theirs: ImageHashes, distance: int
) -> Iterator[Fault]:
    """Faults for pictures that are also in another set, whatever their captions."""
    pairs = confirmed(leaks_between(hashes, theirs, distance), pictures, others)
    for index, other in first_of_each(pairs).tolist():
        exact = " byte by byte" if hashes.digest[index] == theirs.digest[other] else ""
        text = f"{pictures[index].key} is {others[other].key} of {others.path}{exact}"
        yield Fault(pictures[index].key, "leak", text)


def _has_more_captions(item: Item, first: Item) -> bool:
    """Return whether a picture has a caption that its copy lacks."""
    return not {caption.text for caption in item.captions} <= {caption.text for caption in first.captions}
