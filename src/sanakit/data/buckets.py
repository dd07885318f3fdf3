"""Which size each picture is trained at, and which part of it fills that size.

base 512   256x1024 ... 512x512 ... 1024x256     33 sizes (height x width), all of about 512 x 512 pixels

A picture is resized until it just covers its bucket, and one side is cropped:

    picture 6 x 4                resized 3 x 2            bucket 2 x 2
    ┌───────────┐                ┌─────┐                  ┌───┐
    │           │      ──▶       │     │        ──▶       │   │   left: what was in front of the crop
    │           │                └─────┘                  └───┘
    └───────────┘

Aspect ratios are never distorted, and the numbers of the crop are kept, so that latents can be cached under them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Literal

from torch import Tensor

from sanakit.base.errors import ConfigError, RequestError
from sanakit.base.sizes import BUCKETS, check_side, nearest_side, nearest_size
from sanakit.data.image import cut_picture, to_tensor
from sanakit.data.items import Item

Bucket = tuple[int, int]
"""(height, width) in pixels."""

_SCALED_FROM = 1024


@dataclass(frozen=True, kw_only=True)
class BucketRule:
    """How sizes are assigned to pictures.

    Attributes:
        bases: sides in pixels of the square sizes; several for a multi-scale set. Multiples of 32.
        square: only the square of each base, instead of its table of aspect ratios.
        enlarge: a picture belongs to the largest base it covers when it is enlarged by this factor at most (1: not at
            all); one that covers none belongs to the smallest.

    Raises ConfigError for other values.
    """

    bases: tuple[int, ...] = (512,)
    square: bool = False
    enlarge: float = 1.0

    def __post_init__(self) -> None:
        if not self.bases:
            raise ConfigError("buckets need at least one base, the side of a square in pixels")
        for base in self.bases:
            check_side("the base of buckets", base, raises=ConfigError)
        if self.enlarge < 1:
            raise ConfigError(f"enlarge is a factor of 1 or more, not {self.enlarge}")


@cache
def bucket_table(base: int) -> tuple[Bucket, ...]:
    """Return a base's sizes: as published for 512, 1024, 2048 and 4096, else the 1024 table in multiples of 32."""
    if base in BUCKETS:
        return BUCKETS[base]
    sizes = ((_scaled(height, base), _scaled(width, base)) for height, width in BUCKETS[_SCALED_FROM])
    return tuple(dict.fromkeys(sizes))


def _scaled(side: int, base: int) -> int:
    return nearest_side(side * base / _SCALED_FROM)


def bucket_for(item: Item, rule: BucketRule) -> Bucket:
    """Return the (height, width) at which an item is trained."""
    return _bucket_for(item.height, item.width, rule)


@lru_cache(maxsize=65536)  # sets repeat their sizes, and a search takes 30 microseconds
def _bucket_for(height: int, width: int, rule: BucketRule) -> Bucket:
    for base in sorted(rule.bases, reverse=True):
        sizes = ((base, base),) if rule.square else bucket_table(base)
        bucket = nearest_size(sizes, height, width)
        if max(bucket[0] / height, bucket[1] / width) <= rule.enlarge:
            return bucket
    return bucket


def enlargement(item: Item, bucket: Bucket) -> float:
    """Return the factor by which an item is resized to cover a bucket; above 1 it is enlarged."""
    return max(bucket[0] / item.height, bucket[1] / item.width)


def cut_away(item: Item, bucket: Bucket) -> float:
    """Return the share of an item's picture, 0 to 1, that a crop to the bucket leaves out."""
    return 1 - bucket[0] * bucket[1] / (item.height * item.width * enlargement(item, bucket) ** 2)


def assign_buckets(items: Sequence[Item], rule: BucketRule) -> list[Bucket]:
    """Return the bucket of every item."""
    return [bucket_for(item, rule) for item in items]


def merge_small(buckets: Sequence[Bucket], least: int) -> list[Bucket]:
    """Return the bucket of every item, with those of fewer than `least` items joined to their nearest neighbour.

    The smallest goes first; the neighbour is nearest in aspect ratio and area (sum of the differences of logarithms).
    The same items and `least` always give the same result. If all are small, one bucket is left.
    """
    counts = Counter(buckets)
    moved: dict[Bucket, Bucket] = {}
    while len(counts) > 1:
        count, small = min((count, bucket) for bucket, count in counts.items())
        if count >= least:
            break
        del counts[small]
        target = min(counts, key=lambda other: (_distance(small, other), other))
        counts[target] += count
        moved[small] = target
    return [_follow(bucket, moved) for bucket in buckets]


def _follow(bucket: Bucket, moved: dict[Bucket, Bucket]) -> Bucket:
    while bucket in moved:
        bucket = moved[bucket]
    return bucket


def _distance(one: Bucket, other: Bucket) -> float:
    ratios = math.log(one[0] / one[1]) - math.log(other[0] / other[1])
    areas = math.log(one[0] * one[1]) - math.log(other[0] * other[1])
    return abs(ratios) + abs(areas)


@dataclass(frozen=True, kw_only=True)
class Crop:
    """Resize so that the picture covers the bucket, then cut. All numbers are pixels.

    Attributes:
        height, width: of the bucket.
        resized_height, resized_width: of the whole picture after resizing; at least those of the bucket.
        top, left: of the cut, in the resized picture.
    """

    height: int
    width: int
    resized_height: int
    resized_width: int
    top: int
    left: int


def crop_for(item: Item, bucket: tuple[int, int], where: float | Literal["centre"] = "centre") -> Crop:
    """Return the crop of an item for a bucket (height, width).

    where: 0 keeps the top or left end of the side that is too long, 1 the bottom or right end; "centre" is 0.5.
    Raises RequestError for another number.
    """
    share = 0.5 if where == "centre" else float(where)
    if not 0 <= share <= 1:
        raise RequestError(f"where to crop is a number from 0 to 1 or 'centre', not {where}")
    height, width = bucket
    scale = max(height / item.height, width / item.width)
    resized_height = max(height, round(item.height * scale))
    resized_width = max(width, round(item.width * scale))
    return Crop(
        height=height,
        width=width,
        resized_height=resized_height,
        resized_width=resized_width,
        top=_start(resized_height - height, share),
        left=_start(resized_width - width, share),
    )


def _start(excess: int, share: float) -> int:
    """Return a start from 0 to `excess`: each has the same part of the shares from 0 to 1."""
    return min(int(share * (excess + 1)), excess)


def picture_tensor(data: bytes, crop: Crop) -> Tensor:
    """Return an encoded picture as uint8 [3, crop.height, crop.width], RGB.

    Rotated as EXIF says; alpha is laid on white; 16-bit grey is scaled to 8 bits; palettes, grey and CMYK become RGB;
    of an animation the first frame counts; colour profiles are not applied. Bicubic with antialiasing, as published.
    Raises PictureError if the picture is broken, of an unknown form, or larger than `image.MOST_PIXELS`.
    """
    resized = (crop.resized_width, crop.resized_height)
    box = (crop.left, crop.top, crop.left + crop.width, crop.top + crop.height)
    return to_tensor(cut_picture(data, resized, box))
