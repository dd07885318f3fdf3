"""Inversion: from a sample to the noise that it comes from, and from there to what other words draw.

Euler steps lead from x_i to x_{i+1} = x_i + (s_{i+1} - s_i) v(x_i, s_i). Upwards that is an equation for x_i, solved by
fixed-point iteration with the velocity of the source's words:

    x_i <- x_{i+1} - (s_{i+1} - s_i) v_source(x_i, s_i)       first with the velocity of the level below

Down again the velocity is that of the target's words; with equal words and guidance the source comes back, as far as
the iterations went. No noise is drawn, so an edit by inversion has no seed.

Only flow models can be inverted: a consistency model has no velocity that leads from a level to the next one.

Sources: Song et al. 2021, "Denoising diffusion implicit models", arXiv:2010.02502, section 4.3; Pan et al. 2023,
"Effective real image editing with accelerated iterative diffusion inversion", arXiv:2309.04907, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sanakit.flow.euler import euler
from sanakit.flow.inpainting import keep_source
from sanakit.flow.sampling import Query, Solver, check_sigmas

__all__ = ["ITERATIONS", "SourceQuery", "edit_by_inversion", "invert"]

ITERATIONS = 2
"""Of each step of an inversion."""


@dataclass(frozen=True, eq=False)
class SourceQuery(Query):
    """A point at which the velocity by the words of the source is needed, and none by those of the target."""

    @property
    def points(self) -> tuple[Tensor | None, ...]:
        """See `Query`."""
        return self.x, None


def invert(x: Tensor, sigmas: Sequence[float] | Tensor, iterations: int = ITERATIONS) -> Solver:
    """Climb from a clean sample to the state from which Euler steps lead back to it.

    Args:
        x: the sample [B, ...].
        sigmas: steps + 1 falling noise levels, climbed from the last to the first.
        iterations: velocities asked for at each level.

    Returns the state at sigmas[0] [B, ...] float32. Raises RequestError for a bad list of levels.
    """
    levels, x = check_sigmas(sigmas), x.float()
    velocity = torch.zeros_like(x)
    for step in reversed(range(len(levels) - 1)):
        rise = levels[step] - levels[step + 1]
        state = x + rise * velocity
        for _ in range(iterations):
            velocity = yield SourceQuery(state, levels[step], step)
            state = x + rise * velocity
        x = state
    return x


def edit_by_inversion(
    x: Tensor,
    sigmas: Sequence[float] | Tensor,
    iterations: int = ITERATIONS,
    free_below: Tensor | None = None,
) -> Solver:
    """Invert a clean sample by the words of the source, and draw it again by those of the target.

    The first queries are `SourceQuery`s, `iterations` for each step; then come those of `euler`. Arguments as of
    `invert`. free_below: where the sample may change, see `keep.is_free`; None for everywhere. Returns the edit.
    """
    noisy = yield from invert(x, sigmas, iterations)
    solver = euler(noisy, sigmas)
    if free_below is not None:
        solver = keep_source(solver, x.float(), free_below)
    return (yield from solver)
