"""Measurements of a run: sums until the next report, the time that is left, the share of the machine's speed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from sanakit.training.cost import product_rate

_RECENT = 0.05  # weight of a step in the mean time of steps: about the last twenty count


class Meter:
    """Sums since the last `reset`: losses, gradient norms, operations, seconds of steps, seconds waited for data.

    Time outside `step` (previews, validation, checkpoints) isn't training and is not counted.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start again from zero."""
        self.count = self.steps = 0
        self.waited = self.trained = self.operations = self.last = 0.0
        self._sums: dict[str, Tensor] = {}
        self._counts: Counter[str] = Counter()
        self._norms = 0.0

    @contextmanager
    def step(self) -> Iterator[None]:
        """Time one training step, taken or skipped."""
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
            self._counts[name] += 1
            self._sums[name] = self._sums.get(name, torch.zeros((), device=value.device)) + value

    @property
    def losses(self) -> dict[str, float]:
        """Means by name, each over the steps that had it."""
        return {name: float(value) / self._counts[name] for name, value in self._sums.items()}

    @property
    def norm(self) -> float:
        """The mean gradient norm."""
        return self._norms / max(1, self.count)

    @property
    def seconds(self) -> float:
        """Per step of training."""
        return self.trained / max(1, self.steps)


class Pace:
    """The time that the rest of a run takes: steps at their recent pace, hooks at their own mean, and everything else.

    It knows this process alone: steps before a resume took their time elsewhere.
    """

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._trained = self._hooked = self._recent = 0.0
        self._steps = 0
        self._hooks: dict[str, tuple[int, float]] = {}

    def step(self, seconds: float) -> None:
        """Count a training step that took so long."""
        self._steps += 1
        self._trained += seconds
        weight = max(_RECENT, 1 / self._steps)
        self._recent += weight * (seconds - self._recent)

    def hook(self, name: str, seconds: float) -> None:
        """Count a hook that took so long."""
        count, total = self._hooks.get(name, (0, 0.0))
        self._hooks[name] = count + 1, total + seconds
        self._hooked += seconds

    def left(self, step: int, steps: int, hooks: Mapping[str, tuple[int, float]]) -> float | None:
        """Seconds from `step` to `steps`; None before the first step.

        hooks: name -> (steps between, what one is expected to take, in training steps, until one was measured).
        """
        if not self._steps:
            return None
        other = max(0.0, time.monotonic() - self._begun - self._trained - self._hooked) / self._steps
        total = max(0, steps - step) * (self._recent + other)
        for name, (every, expected) in hooks.items():
            if every:
                count, spent = self._hooks.get(name, (0, 0.0))
                total += times_due(step, steps, every) * (spent / count if count else expected * self._recent)
        return total


def times_due(step: int, steps: int, every: int) -> int:
    """Count how often something done every `every` steps is still due; at `step` it has not been done yet."""
    return steps // every - step // every + (step > 0 and step % every == 0) if step <= steps else 0


class Speed:
    """Operations of micro-batches beside the best rate of matrix products that was seen on this machine.

    operations: of a micro-batch of this process, with its backward pass; None if they are not counted.
    rate: operations a second; 0 if unknown.
    """

    def __init__(self, operations: Callable[[Any], float] | None = None, rate: float = 0.0) -> None:
        self._operations, self.rate = operations, rate

    def operations(self, batch: Any) -> float:
        """Operations of a micro-batch; 0 if they are not counted."""
        return self._operations(batch) if self._operations else 0.0

    def share(self, reached: float, device: torch.device, dtype: torch.dtype | None) -> float | None:
        """Return the share of the rate that `reached` operations a second are, 1 at most (MFU); None if it is unknown.

        A rate that training beats was measured while the machine was busy: it is measured again.
        """
        if not (self.rate and reached):
            return None
        if reached > self.rate:
            self.rate = max(self.rate, product_rate(device, dtype or torch.float32), reached)
        return reached / self.rate
