"""The memory of text states: keyed by content, bounded, the longest unused goes first."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from dataclasses import dataclass

from sanakit.base.values import TextStates


@dataclass(frozen=True)
class CacheInfo:
    """How often states were found, how often they had to be computed, and how many are kept."""

    hits: int
    misses: int
    size: int


def content_key(*parts: str | int | bool) -> str:
    """The sha256 (hex) of `parts` in their order; different parts never run together."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class StatesCache:
    """At most `capacity` TextStates by key; 0 keeps none."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._kept: OrderedDict[str, TextStates] = OrderedDict()
        self._hits = 0
        self._misses = 0

    def get(self, key: str) -> TextStates | None:
        """The states under `key`, or None; counted as a hit or a miss."""
        found = self._kept.get(key)
        if found is None:
            self._misses += 1
            return None
        self._hits += 1
        self._kept.move_to_end(key)
        return found

    def put(self, key: str, states: TextStates) -> None:
        """Keeps `states`, and forgets the longest unused when there are too many."""
        self._kept[key] = states
        while len(self._kept) > self.capacity:
            self._kept.popitem(last=False)

    def clear(self) -> None:
        """Forgets all states and sets the counters to zero."""
        self._kept.clear()
        self._hits = self._misses = 0

    @property
    def info(self) -> CacheInfo:
        """Hits and misses since the last `clear`, and the number of kept states."""
        return CacheInfo(self._hits, self._misses, len(self._kept))
