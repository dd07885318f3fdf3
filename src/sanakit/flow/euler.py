"""Euler's method on the flow: a straight step that asks the network once.

    x_{i+1} = x_i + (s_{i+1} - s_i) v(x_i, s_i)          global error O(step)

Source: Liu et al. 2022, "Flow straight and fast", arXiv:2209.03003, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from sanakit.flow.sampling import Query, Solver, check_sigmas

__all__ = ["euler"]


def euler(x: Tensor, sigmas: Sequence[float] | Tensor) -> Solver:
    """Sample by Euler steps.

    Args:
        x: the state at sigmas[0] [B, ...]; noise if that is 1.
        sigmas: steps + 1 falling noise levels.

    Returns the state at sigmas[-1] [B, ...] float32; if that is 0, the network's last clean sample x - s v. Raises
    RequestError for a bad list of levels.
    """
    x = x.float()
    for step, (sigma, next_sigma) in enumerate(pairwise(check_sigmas(sigmas))):
        velocity = yield Query(x, sigma, step)
        x = x + (next_sigma - sigma) * velocity
    return x
