"""A sampler asks, and somebody else answers: solvers as generators, and the loop that runs one of them.

A solver walks down a list of noise levels. At each it yields `Query(x, sigma, step)`, is sent the velocity there, and
returns the sample. It calls no network, so `drive` may answer one solver from a `denoise` function, and a server may
hold a `Walk` of each of many solvers and answer them, each at its own step of its own schedule, from one forward pass.

The state is float32 whatever the network computes in, and no operation mixes samples: an image doesn't depend on the
batch it is drawn in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from sanakit.base.errors import RequestError
from sanakit.flow.path import x0_from_velocity

__all__ = ["Denoise", "Noise", "Query", "Solver", "State", "Walk", "check_sigmas", "drive"]


@dataclass(frozen=True, eq=False)
class Query:
    """A point of the linear path at which a solver needs the velocity.

    x      the noisy sample [B, ...] float32
    sigma  its noise level in [0, 1]
    step   the index of the step, from 0
    """

    x: Tensor
    sigma: float
    step: int

    @property
    def points(self) -> tuple[Tensor | None, ...]:
        """Where a velocity is needed, by words: of an edit first those of the source; None where none is needed."""
        return (self.x,)


Solver = Generator[Query, Tensor, Tensor]
"""Yields queries, is sent the velocity [B, ...] float32 of each, and returns the sample [B, ...] float32."""

Denoise = Callable[[Tensor, float, int], Tensor]
"""denoise(x [B, ...] float32, sigma, step) -> velocity [B, ...] in any float dtype."""

Noise = Callable[[int], Tensor]
"""noise(step) -> standard normal [B, ...] to add after step 0, 1, ...; see `base.seeds.noise_stream`."""


@dataclass(frozen=True, eq=False)
class State:
    """What is known after a step.

    step  the step just made, from 0
    x     the point that the next step begins at, after the last step the sample [B, ...] float32
    x0    the clean sample as the network saw it in this step [B, ...] float32: the preview
    """

    step: int
    x: Tensor
    x0: Tensor


class Walk:
    """A solver between two steps. Whoever holds it answers when it likes: at once, or together with many others.

    query: what it asks now; None once it has its sample.
    """

    def __init__(self, solver: Solver) -> None:
        self._solver = solver
        self.query: Query | None = next(solver)

    def answer(self, velocity: Tensor) -> State:
        """Go on with the velocity [B, ...] at the query; return the state after the step."""
        query, velocity = self.query, velocity.float()
        assert query is not None, "the solver has its sample"
        x0 = x0_from_velocity(query.x, velocity, query.sigma)
        try:
            self.query = self._solver.send(velocity)
        except StopIteration as end:
            self.query = None
            return State(query.step, end.value, x0)
        return State(query.step, self.query.x, x0)


def drive(solver: Solver, denoise: Denoise) -> Iterator[State]:
    """Answer a solver's queries by `denoise` and yield a State after each; the last `x` is the sample."""
    walk = Walk(solver)
    while (query := walk.query) is not None:
        yield walk.answer(denoise(query.x, query.sigma, query.step))


def check_sigmas(sigmas: Sequence[float] | Tensor, highest: float = 1.0) -> list[float]:
    """Return the noise levels as numbers.

    Raises RequestError unless there are at least two that fall all the way, from at most `highest` to at least 0.
    """
    values = [float(sigma) for sigma in sigmas]
    if len(values) < 2:
        raise RequestError(f"a solver needs at least two noise levels, got {len(values)}")
    if not all(math.isfinite(value) for value in values) or values[0] > highest or values[-1] < 0:
        raise RequestError("noise levels must lie between 1 and 0")
    for index, (high, low) in enumerate(zip(values, values[1:], strict=False)):
        if not high > low:
            raise RequestError(f"noise levels must fall, but level {index + 1} is {low:g} after {high:g}")
    return values
