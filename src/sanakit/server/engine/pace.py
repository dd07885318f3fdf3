"""How fast this machine draws, as it was measured: what ETAs and `Retry-After` go by.

Rates are moving averages over the last dozens of steps, so they follow the load.
"""

from __future__ import annotations

import math
from collections.abc import Hashable

_WEIGHT = 0.1
"""Of a new measurement."""

UNKNOWN = 5.0
"""Seconds to wait for a place in the queue when nothing was measured yet."""
LONGEST = 600.0
_KINDS = 1000


class Pace:
    """Measured times. Shared by threads: its owner's lock guards it."""

    def __init__(self) -> None:
        self._laps: dict[Hashable, float] = {}
        self._rows: dict[Hashable, float] = {}
        self._any_row: float | None = None

    def step(self, kind: Hashable, seconds: float, lap: float, rows: int) -> None:
        """Note a step of a group.

        kind: what its pictures have in common. seconds: that it took. lap: seconds since the step before, with
        whatever the worker did in between. rows: pictures in it.
        """
        if len(self._laps) > _KINDS:  # sizes are the clients' to choose
            self._laps.clear()
            self._rows.clear()
        self._laps[kind] = _mean(self._laps.get(kind), max(lap, seconds))
        row = max(lap, seconds) / rows
        self._rows[kind] = _mean(self._rows.get(kind), row)
        self._any_row = _mean(self._any_row, row)

    def seconds_left(self, kind: Hashable, steps: int) -> float | None:
        """Return the seconds until a picture on its way has made so many steps; None if nothing was measured."""
        lap = self._laps.get(kind, self._any_row)
        return None if lap is None else lap * steps

    def seconds_of(self, kind: Hashable, steps: int) -> float | None:
        """Return the seconds that so many steps of single pictures take of the worker's time, in the usual company."""
        row = self._rows.get(kind, self._any_row)
        return None if row is None else row * steps

    def retry_after(self, seconds: float | None, jobs: int) -> float:
        """Return the whole seconds after which a place in the queue is likely: those of one of `jobs` in `seconds`."""
        if seconds is None or jobs < 1:
            return UNKNOWN
        return float(min(LONGEST, max(1, math.ceil(seconds / jobs))))


def _mean(before: float | None, value: float) -> float:
    return value if before is None else before + _WEIGHT * (value - before)
