"""What a picture looks like, in 216 bytes: enough to find its copies, resized or saved again, among millions.

Difference hash: 8 x 8 bits that say where brightness rises, once to the right and once downwards (dHash, N. Krawetz,
"Kind of Like That", 2013). Pictures whose brightness is alike may still differ in colour: 8 x 8 mean colours decide.
That finds candidates: small flat pictures, such as two faces that differ in the mouth, share all of it. What they are
is decided by `same_pixels`, on the pictures themselves at 24 x 24.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sanakit.data.picture import thumbnail

_SIDE = 72  # divides into 8 and into 9 blocks
_RISE = (
    1.0  # of 255: below it brightness counts as level, so that the noise of JPEG in flat areas gives no bits
)
_COLOUR = 24  # of 255: the largest difference of mean colours between copies
_FLAT = 2.0  # of 255: a picture whose blocks differ by no more is of a single colour
_GRID = 24
_GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_FARTHEST = 24.0
"""Of 255, in brightness: copies of emoji of 72 px reach 15 (JPEG of quality 50), other hands of a clock 41."""

_FARTHEST_COLOUR = 80.0  # of 255; copies reach 62, for JPEG halves the resolution of colour


@dataclass(frozen=True)
class Look:
    """Of one picture: a mark of its bytes, both hashes, mean colours uint8 [8, 8, 3], whether it has but one colour."""

    digest: int
    across: int
    down: int
    colours: NDArray[np.uint8]
    blank: bool = False


class Looks:
    """The looks of many pictures, as arrays; a picture that could not be read has none."""

    def __init__(self, count: int) -> None:
        self.known = np.zeros(count, dtype=bool)
        self.digest = np.zeros(count, dtype=np.uint64)
        self.across = np.zeros(count, dtype=np.uint64)
        self.down = np.zeros(count, dtype=np.uint64)
        self.colours = np.zeros((count, 8, 8, 3), dtype=np.uint8)
        self.blank = np.zeros(count, dtype=bool)

    def __len__(self) -> int:
        return len(self.known)

    def put(self, index: int, look: Look) -> None:
        """Keep the look of picture `index`."""
        self.known[index] = True
        self.digest[index], self.across[index], self.down[index] = look.digest, look.across, look.down
        self.colours[index], self.blank[index] = look.colours, look.blank

    def joined(self, other: Looks) -> Looks:
        """Ours, then the other's."""
        both = Looks(0)
        for name in ("known", "digest", "across", "down", "colours", "blank"):
            setattr(both, name, np.concatenate([getattr(self, name), getattr(other, name)]))
        return both


def look_at(data: bytes) -> Look:
    """The look of an encoded picture; all of it is decoded. Raises PictureError."""
    pixels = np.asarray(thumbnail(data, (_SIDE, _SIDE)), dtype=np.float32)
    grey = pixels @ _GREY
    return Look(
        digest=int.from_bytes(hashlib.blake2b(data, digest_size=8).digest()),
        across=_bits(np.diff(_blocks(grey, 8, 9), axis=1)),
        down=_bits(np.diff(_blocks(grey, 9, 8), axis=0)),
        colours=_blocks(pixels, 8, 8).round().astype(np.uint8),
        blank=bool((pixels.max(axis=(0, 1)) - pixels.min(axis=(0, 1)) <= _FLAT).all()),
    )


def small_pixels(data: bytes) -> NDArray[np.int16]:
    """The picture at [24, 24, 3]. Raises PictureError."""
    smooth = Image.Resampling.BILINEAR  # whole blocks would not fit those of a picture of another size
    return np.asarray(thumbnail(data, (_GRID, _GRID), smooth), dtype=np.int16)


def same_pixels(one: NDArray[np.int16], other: NDArray[np.int16]) -> bool:
    """Whether two pictures, as `small_pixels` gives them, differ by no more than resizing and saving again does."""
    difference = (one - other).astype(np.float32)
    brightness = np.abs(difference @ _GREY)
    return bool(brightness.max() <= _FARTHEST and np.abs(difference).max() <= _FARTHEST_COLOUR)


def alike(looks: Looks, one: NDArray[np.int64], other: NDArray[np.int64], distance: int) -> NDArray[np.bool_]:
    """Whether the pictures of each pair are copies: at most `distance` bits of 64 differ, twice that downwards."""
    across = np.bitwise_count(looks.across[one] ^ looks.across[other]) <= distance
    found: NDArray[np.bool_] = across & (
        np.bitwise_count(looks.down[one] ^ looks.down[other]) <= 2 * distance
    )
    rest = np.flatnonzero(found)
    colours = (looks.colours[index[rest]].astype(np.int16) for index in (one, other))
    found[rest] = np.abs(next(colours) - next(colours)).max(axis=(1, 2, 3), initial=0) <= _COLOUR
    return found


def _blocks(values: NDArray[np.float32], rows: int, columns: int) -> NDArray[np.float32]:
    """Means over a grid of blocks: [72, 72, ...] -> [rows, columns, ...]."""
    split = values.reshape(rows, _SIDE // rows, columns, _SIDE // columns, *values.shape[2:])
    means: NDArray[np.float32] = split.mean(axis=(1, 3))
    return means


def _bits(rises: NDArray[np.float32]) -> int:
    return int.from_bytes(np.packbits(rises > _RISE).tobytes())
