"""Euler's method on the flow: the straight step that asks the network once.

    x_{i+1} = x_i + (s_{i+1} - s_i) v(x_i, s_i)          global error O(step)

With a last level of 0 the last step returns the network's clean sample x - s v.
Source: Liu et al. 2022, "Flow straight and fast", arXiv:2209.03003, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from sanakit.flow.prediction import x0_from_velocity
from sanakit.flow.solver import Callback, Denoise, Nodes, State, check_sigmas, last_state

__all__ = ["euler", "iterate_euler"]


def euler(denoise: Denoise, x: Tensor, sigmas: Nodes, callback: Callback | None = None) -> Tensor:
    """Sample by Euler steps.

    Args:
        denoise: (x, sigma, index) -> velocity.
        x: the state at sigmas[0] [B, ...]; noise if that is 1.
        sigmas: steps + 1 falling noise levels.
        callback: called with the State after every step.

    Returns the state at sigmas[-1] [B, ...] float32. Raises RequestError for a bad list of levels.
    """
    return last_state(iterate_euler(denoise, x, sigmas), callback)


def iterate_euler(denoise: Denoise, x: Tensor, sigmas: Nodes) -> Iterator[State]:
    """`euler` as a generator of its states."""
    return _walk(denoise, x.float(), check_sigmas(sigmas))


def _walk(denoise: Denoise, x: Tensor, sigmas: list[float]) -> Iterator[State]:
    for index, (sigma, following) in enumerate(zip(sigmas, sigmas[1:], strict=False)):
        velocity = denoise(x, sigma, index).float()
        x0 = x0_from_velocity(x, velocity, sigma)
        x = x + (following - sigma) * velocity
        yield State(index, following, x, x0)
