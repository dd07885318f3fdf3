"""Means of what is measured at every step, until they are reported."""

from __future__ import annotations

import time

import torch
from torch import Tensor


class Meter:
    """Sums since the last `reset`: losses, gradient norms, seconds, and seconds that were spent waiting for data."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew, now."""
        self.count = 0
        self.waited = 0.0
        self._sums: dict[str, Tensor] = {}
        self._norms = 0.0
        self._begun = time.monotonic()

    def add(self, parts: dict[str, Tensor], norm: float) -> None:
        """Count one step."""
        self.count += 1
        self._norms += norm
        for name, value in parts.items():
            self._sums[name] = self._sums.get(name, torch.zeros((), device=value.device)) + value

    @property
    def losses(self) -> dict[str, float]:
        """Means by name."""
        return {name: float(value) / max(1, self.count) for name, value in self._sums.items()}

    @property
    def norm(self) -> float:
        """The mean gradient norm."""
        return self._norms / max(1, self.count)

    @property
    def seconds(self) -> float:
        """Per step, everything included."""
        return self.elapsed / max(1, self.count)

    @property
    def elapsed(self) -> float:
        """Since the last reset."""
        return time.monotonic() - self._begun
