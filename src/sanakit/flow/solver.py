"""What all solvers share: the function they call, the state they yield, and the check of their node list.

A solver walks down a list of noise levels. It calls `denoise(x, sigma, index)`, which wraps the network, the text and
the guidance, and yields one `State` per step; whoever iterates may show it, stop, or go on. The state is float32
whatever the network computes in, and no operation mixes samples, so a picture does not depend on its batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from sanakit.base.errors import RequestError

__all__ = ["Callback", "Denoise", "Nodes", "State", "check_sigmas", "last_state"]

Denoise = Callable[[Tensor, float, int], Tensor]
"""denoise(x [B, ...] float32, noise level sigma, step index from 0) -> velocity [B, ...] in any float dtype."""

Nodes = Sequence[float] | Tensor
"""Noise levels, or angles for the consistency sampler: steps + 1 numbers, descending."""


@dataclass(frozen=True, eq=False)
class State:
    """What is known after one step.

    index  the step just made, from 0
    sigma  the noise level that x now has, in [0, 1]; 0 after the last step of a full trajectory
    x      the state [B, ...] float32
    x0     the clean sample that the network saw in this step [B, ...] float32: the preview
    """

    index: int
    sigma: float
    x: Tensor
    x0: Tensor


Callback = Callable[[State], object]
"""Called after every step; what it returns is ignored, and raising ends the sampling."""


def last_state(states: Iterator[State], callback: Callback | None = None) -> Tensor:
    """Run a solver to its end, calling `callback` after every step, and return the last x [B, ...]."""
    for state in states:
        if callback is not None:
            callback(state)
    return state.x


def check_sigmas(sigmas: Nodes) -> list[float]:
    """The noise levels as numbers.

    Raises RequestError unless there are at least two, falling all the way, the first at most 1, the last at least 0.
    """
    values = [float(sigma) for sigma in sigmas]
    if len(values) < 2:
        raise RequestError(f"a solver needs at least two noise levels, got {len(values)}")
    if not all(math.isfinite(value) for value in values) or values[0] > 1 or values[-1] < 0:
        raise RequestError("noise levels must lie between 1 and 0")
    for index, (high, low) in enumerate(zip(values, values[1:], strict=False)):
        if not high > low:
            raise RequestError(f"noise levels must fall, but level {index + 1} is {low:g} after {high:g}")
    return values
