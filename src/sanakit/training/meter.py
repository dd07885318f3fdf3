"""What is measured at every step until it is reported, and how long a run will still take."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

_RECENT = 0.05  # what a step counts in the mean time of steps: about the last twenty


class Meter:
    """Sums since the last `reset`: losses, gradient norms, operations, seconds of steps, seconds waited for data.

    Time outside `step` (previews, validation, checkpoints) is no training and not counted.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew, now."""
        self.count = self.steps = 0
        self.waited = self.trained = self.operations = self.last = 0.0
        self._sums: dict[str, Tensor] = {}
        self._norms = 0.0

    @contextmanager
    def step(self) -> Iterator[None]:
        """Time one training step, be it taken or skipped."""
        begun = time.monotonic()
        yield
        self.last = time.monotonic() - begun
        self.trained += self.last
        self.steps += 1

    def add(self, parts: dict[str, Tensor], norm: float) -> None:
        """Count one step that was taken."""
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
        """Per step of training."""
        return self.trained / max(1, self.steps)


class Pace:
    """How long the rest of a run takes: steps at their recent pace, chores at their own mean, and what else goes by.

    It knows this process alone: steps of before a resume took their time elsewhere.
    """

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._trained = self._chored = self._recent = 0.0
        self._steps = 0
        self._chores: dict[str, tuple[int, float]] = {}

    def step(self, seconds: float) -> None:
        """A training step took so long."""
        self._steps += 1
        self._trained += seconds
        weight = max(_RECENT, 1 / self._steps)
        self._recent += weight * (seconds - self._recent)

    def chore(self, name: str, seconds: float) -> None:
        """A chore took so long."""
        count, total = self._chores.get(name, (0, 0.0))
        self._chores[name] = count + 1, total + seconds
        self._chored += seconds

    def left(self, step: int, steps: int, chores: Mapping[str, tuple[int, float]]) -> float | None:
        """Seconds from `step` to `steps`; None before the first step.

        chores: name -> (steps between, what one is expected to take, in training steps, until one was measured).
        """
        if not self._steps:
            return None
        other = max(0.0, time.monotonic() - self._begun - self._trained - self._chored) / self._steps
        total = max(0, steps - step) * (self._recent + other)
        for name, (every, expected) in chores.items():
            if every:
                count, spent = self._chores.get(name, (0, 0.0))
                total += times_due(step, steps, every) * (spent / count if count else expected * self._recent)
        return total


def times_due(step: int, steps: int, every: int) -> int:
    """How often what is done every so many steps comes from now on; at `step` itself it is still to be done."""
    return steps // every - step // every + (step > 0 and step % every == 0) if step <= steps else 0
