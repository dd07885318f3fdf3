"""Learning rates: how they grow with the batch, and their shape over the steps of a run. Pure functions.

The published training code multiplies every learning rate of its configs by sqrt(batch / 256), where the batch is that
of all processes and accumulated steps together, and says so nowhere (its `auto_lr` is on unless a config sets it to
null). Its warm-up hangs on the number of processes too, since accelerate advances a schedule once per process. Here a
rule is named or there is none, and steps are steps of the optimiser.
"""

from __future__ import annotations

import math
from typing import Literal

from sanakit.base.errors import ConfigError

BatchRule = Literal["none", "sqrt", "linear"]
"""The growth of a learning rate with the batch."""


def lr_for_batch(lr: float, batch: int, rule: BatchRule = "none", base: int = 256) -> float:
    """Return a learning rate that was found at a batch of `base` pictures, for a batch of `batch`.

    none: as it is. sqrt: times sqrt(batch / base), the published recipe. linear: times batch / base (arXiv 1706.02677).
    Raises ConfigError for batches below 1 and other rules.
    """
    if batch < 1 or base < 1:
        raise ConfigError(f"learning rate: batch is {batch} and base {base}; both must be at least 1")
    if rule == "none":
        return lr
    if rule == "sqrt":
        return lr * math.sqrt(batch / base)
    if rule == "linear":
        return lr * batch / base
    raise ConfigError(f"learning rate: the rule {rule!r} is unknown; take none, sqrt or linear")


def warm_constant(step: int, warmup: int = 2000) -> float:
    """Factor on the learning rate at `step` (from 0): linear warm-up, then 1 for ever, as published."""
    return min(1.0, (step + 1) / max(1, warmup))


def trapezoid(step: int, steps: int, warmup: int, cooldown: float) -> float:
    """Factor on the learning rate: linear warm-up, constant, linear cool-down over the last share of the run."""
    start = steps * (1 - cooldown)
    fall = min(1.0, (steps - step) / max(1.0, steps - start))
    return min(warm_constant(step, warmup), max(fall, 0.0))
