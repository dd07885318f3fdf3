"""A bounded cache by content, for text states here and in the pipeline: the least recently used is dropped first."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class CacheInfo:
    """Numbers of hits and misses, and of the values that are kept."""

    hits: int
    misses: int
    size: int


def content_key(*parts: str | int | bool) -> str:
    """Return the sha256 (hex) of `parts` in their order; boundaries between parts count."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class LruCache(Generic[T]):
    """At most `capacity` values by key; 0 keeps none."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._kept: OrderedDict[str, T] = OrderedDict()
        self._hits = 0
        self._misses = 0

    def get(self, key: str) -> T | None:
        """Return the value under `key`, or None; count a hit or a miss."""
        found = self._kept.get(key)
        if found is None:
            self._misses += 1
            return None
        self._hits += 1
        self._kept.move_to_end(key)
        return found

    def put(self, key: str, value: T) -> None:
        """Keep `value`, and drop the least recently used one if there are too many."""
        self._kept[key] = value
        while len(self._kept) > self.capacity:
            self._kept.popitem(last=False)

    def clear(self) -> None:
        """Drop all values and set the counters to zero."""
        self._kept.clear()
        self._hits = self._misses = 0

    @property
    def info(self) -> CacheInfo:
        """Hits and misses since the last `clear`, and the number of kept values."""
        return CacheInfo(self._hits, self._misses, len(self._kept))
