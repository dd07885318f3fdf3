"""Steps that would do harm: a loss or gradient that is no number, or a gradient far larger than those before it.

Such a step is skipped. After `patience` of them in a row the weights themselves are suspect: the run goes back to its
last checkpoint and passes the steps in question by.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from sanakit.base.bounds import Bounds, Count

Verdict = Literal["keep", "skip", "back"]

_REMEMBERED = 100
_FEWEST = 20


@dataclass(frozen=True, kw_only=True)
class GuardConfig:
    """When a step is skipped, and when the run goes back.

    Attributes:
        spike: a gradient norm this many times the median of the last 100 is a spike; 0 looks for none.
        patience: steps skipped in a row that make the run go back; 0 never does.
        rollbacks: how often it may go back before it gives up.
    """

    spike: Annotated[float, Bounds(least=1, most=10**9, off=True)] = 0.0
    patience: Count = 0
    rollbacks: Count = 3


class Guard:
    """Judges each step by its loss and its gradient's norm before clipping; its memory is part of a checkpoint."""

    def __init__(self, config: GuardConfig) -> None:
        self.config = config
        self.skipped = 0
        self.avoided: set[int] = set()
        self.rolled_back = 0
        self.strikes: list[int] = []
        self._norms: deque[float] = deque(maxlen=_REMEMBERED)

    def judge(self, step: int, loss: float, norm: float) -> Verdict:
        """What to do with step `step`: take it, skip it, or go back to the last checkpoint."""
        if self.fault(loss, norm) is None:
            self._norms.append(norm)
            self.strikes.clear()
            return "keep"
        self.skipped += 1
        self.strikes.append(step)
        return "back" if 0 < self.config.patience <= len(self.strikes) else "skip"

    def fault(self, loss: float, norm: float) -> str | None:
        """What is wrong with a step, in words; None where nothing is."""
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if not math.isfinite(norm):
            return f"the gradient's norm is {norm}"
        if self.config.spike and len(self._norms) >= _FEWEST:
            usual = statistics.median(self._norms)
            if norm > self.config.spike * usual:
                return f"the gradient's norm is {norm:.3g}, {norm / usual:.0f} times what is usual"
        return None

    def go_back(self, strikes: list[int]) -> None:
        """Pass these steps by from now on. To be called once the checkpoint's state is restored."""
        self.avoided.update(strikes)
        self.strikes.clear()
        self.rolled_back += 1

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, as JSON."""
        return {
            "skipped": self.skipped,
            "avoided": sorted(self.avoided),
            "rolled_back": self.rolled_back,
            "strikes": self.strikes,
            "norms": list(self._norms),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned; what is already avoided stays so."""
        self.skipped = max(self.skipped, int(state["skipped"]))
        self.avoided |= set(state["avoided"])
        self.rolled_back = max(self.rolled_back, int(state["rolled_back"]))
        self.strikes = list(state["strikes"])
        self._norms = deque(state["norms"], maxlen=_REMEMBERED)
