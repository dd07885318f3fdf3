"""Shares with their uncertainty."""

from __future__ import annotations

import math
from dataclasses import dataclass

_Z = 1.959964  # 95 %, two-sided


@dataclass(frozen=True, kw_only=True)
class Share:
    """`hits` of `n`, as a share with a 95 % interval by Wilson (1927), which stays within 0..1 at both ends."""

    hits: int
    n: int

    @property
    def accuracy(self) -> float:
        """hits / n; not a number for n = 0."""
        return self.hits / self.n if self.n else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """(low, high); (0, 1) for n = 0."""
        if not self.n:
            return 0.0, 1.0
        p, z2 = self.accuracy, _Z**2 / self.n
        middle = (p + z2 / 2) / (1 + z2)
        half = _Z * math.sqrt(p * (1 - p) / self.n + z2 / (4 * self.n)) / (1 + z2)
        return max(0.0, middle - half), min(1.0, middle + half)

    def to_json(self) -> dict[str, float | int | None]:
        """accuracy (null without trials), low, high, n."""
        low, high = self.interval
        return {"accuracy": self.accuracy if self.n else None, "low": low, "high": high, "n": self.n}

    def __str__(self) -> str:
        if not self.n:
            return "no trials"
        low, high = self.interval
        return f"{self.accuracy:6.1%}  [{low:.1%}, {high:.1%}]  n={self.n}"
