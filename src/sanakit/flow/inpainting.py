"""Inpainting, with any solver: parts of a sample stay as they are.

Where a sample is kept, the solver is told the velocity of the straight line to the source,

    v = (x_s - source) / s          so that its clean prediction x_s - s v is the source itself.

A solver that begins on the source's path then stays on it: before each step the kept part is the source noised to
that step's level, as in blended latent diffusion, and at level 0 it is the source. No solver knows of it, not even
those that remember earlier predictions.

`free_below` makes it differential: a position becomes free once the noise level falls below its value. 1 is free from
the first step, 0 never, and what is between begins late and changes little.

Sources: Avrahami et al. 2023, "Blended latent diffusion", arXiv:2206.02779, section 4; Levin and Fried 2023,
"Differential diffusion", arXiv:2306.00950, algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sanakit.flow.sampling import Query, Solver

__all__ = ["is_free", "keep_source", "last_levels"]


def keep_source(solver: Solver, source: Tensor, free_below: Tensor) -> Solver:
    """Run a solver whose state keeps the source where it isn't free.

    Args:
        solver: it must begin at the source, noised to its first level.
        source: the clean sample to keep [B, ...] float32.
        free_below: noise levels in 0..1 [B or 1, 1, ...]; see above.

    Returns what the solver returns.
    """
    query = next(solver)
    while True:
        velocity = yield query
        try:
            query = solver.send(
                torch.where(is_free(free_below, query.sigma), velocity, _towards(query, source))
            )
        except StopIteration as end:
            sample: Tensor = end.value
            return sample


def is_free(free_below: Tensor, sigma: float) -> Tensor:
    """Return where a sample may change at a noise level; the first level of scm is a little above 1."""
    return (free_below >= 1) | (sigma < free_below)


def last_levels(sigmas: Sequence[float], strength: float) -> tuple[float, ...]:
    """Return the noise levels of the last part of a schedule; only the last level for strength 0.

    Of n steps the last n * strength are made, rounded up to whole steps as in diffusers.
    """
    steps = len(sigmas) - 1
    made = math.ceil(steps * strength - 1e-6)  # 0.28 * 25 is 7.000000000000001
    return tuple(sigmas[steps - max(made, 1 if strength > 0 else 0) :])


def _towards(query: Query, source: Tensor) -> Tensor:
    return (query.x - source) / query.sigma
