"""Which size each picture is trained at: the published tables of aspect ratios, other bases, several bases, squares.

base 512   256x1024 ... 512x512 ... 1024x256     33 sizes (height x width), all of about 512 x 512 pixels
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

from sanakit.base.errors import ConfigError
from sanakit.base.grid import BUCKETS, SIZE_STEP, nearest_size
from sanakit.data.items import Item

Bucket = tuple[int, int]
"""(height, width) in pixels."""

_SCALED_FROM = 1024


@dataclass(frozen=True, kw_only=True)
class BucketRule:
    """How pictures are dealt to sizes.

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
        if not self.bases or any(base < SIZE_STEP or base % SIZE_STEP for base in self.bases):
            raise ConfigError(f"bases of buckets are positive multiples of {SIZE_STEP}, not {self.bases}.")
        if self.enlarge < 1:
            raise ConfigError(f"enlarge is a factor of 1 or more, not {self.enlarge}.")


@cache
def bucket_table(base: int) -> tuple[Bucket, ...]:
    """The sizes of a base: as published for 512, 1024, 2048 and 4096, else the 1024 table scaled to multiples of 32."""
    if base in BUCKETS:
        return BUCKETS[base]
    sizes = ((_scaled(height, base), _scaled(width, base)) for height, width in BUCKETS[_SCALED_FROM])
    return tuple(dict.fromkeys(sizes))


def _scaled(side: int, base: int) -> int:
    return max(SIZE_STEP, round(side * base / _SCALED_FROM / SIZE_STEP) * SIZE_STEP)


def bucket_for(item: Item, rule: BucketRule) -> Bucket:
    """The (height, width) that an item is trained at."""
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
    """The factor by which an item is resized to cover a bucket; above 1 it is enlarged."""
    return max(bucket[0] / item.height, bucket[1] / item.width)


def cut_away(item: Item, bucket: Bucket) -> float:
    """The share of an item's picture, 0 to 1, that a crop to the bucket leaves out."""
    return 1 - bucket[0] * bucket[1] / (item.height * item.width * enlargement(item, bucket) ** 2)


def assign_buckets(items: Sequence[Item], rule: BucketRule) -> list[Bucket]:
    """The bucket of every item."""
    return [bucket_for(item, rule) for item in items]


def merge_small(buckets: Sequence[Bucket], least: int) -> list[Bucket]:
    """The bucket of every item, with those of fewer than `least` items joined to their nearest neighbour.

    The smallest goes first; the neighbour is nearest in aspect ratio and area (sum of the differences of logarithms).
    The same items and `least` always give the same result. What is left is one bucket where all are small.
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
