"""DPM-Solver++ on the flow: a multistep method of order 1 to 3 that remembers earlier clean samples.

On the linear path x_s = (1-s) x0 + s n write alpha = 1-s and lambda = ln(alpha/s), half the log signal-to-noise ratio.
In lambda the flow is a linear term, which is solved exactly, and the clean prediction m = x - s v, which is
extrapolated through its last values m0, m1, m2 (newest first). With h = lambda_{i+1} - lambda_i and earlier steps
h0, h1, r0 = h0/h, r1 = h1/h:

    phi1 = e^-h - 1          phi2 = phi1/h + 1          phi3 = phi2/h - 1/2
    D = (m0 - m1)/r0         D' = (m1 - m2)/r1          D1 = D + r0/(r0+r1) (D - D')         D2 = (D - D')/(r0+r1)

    order 1   x <- (s_{i+1}/s_i) x - alpha phi1 m0                          (alpha at the new level)
    order 2   ... - alpha phi1/2 D   (midpoint)      ... + alpha phi2 D   (heun)
    order 3   ... + alpha phi2 D1 - alpha phi3 D2

Traps that this file settles. m is taken as x - s v: the published conversion goes through the noise and divides by
1-s, which is 3e-4 at the first level and loses everything in bf16. The step counter starts at 0 and is never looked
up by an integer time, which is ambiguous from 501 steps on. A last level of 0 is exactly the clean sample.
One is kept: for a clean sample that bends in lambda, D2 as published is half of h^2 m'', so order 3 follows curvature
half-way and still converges with order 2. diffusers computes the same, and pictures are compared with it.

Sources: Lu et al. 2022, "DPM-Solver++", arXiv:2211.01095, algorithm 2 and appendix A; Xie et al. 2024, "SANA",
arXiv:2410.10629, algorithm 1 (Flow-DPM-Solver). Orders at the ends are those of diffusers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from sanakit.base.errors import RequestError
from sanakit.flow.prediction import x0_from_velocity
from sanakit.flow.solver import Callback, Denoise, Nodes, State, check_sigmas, last_state

__all__ = ["Ending", "Kind", "dpm", "iterate_dpm", "order_at"]

Kind = Literal["midpoint", "heun"]
"""The two second-order formulas; the checkpoints ship with midpoint."""

SHORT = 15
"""Below this number of steps the end of the trajectory uses lower orders, which is steadier."""


@dataclass(frozen=True, kw_only=True)
class Ending:
    """The orders at the end of a trajectory, as schedulers of diffusers name them.

    lower_order_final: below 15 steps, the last step is of order 1 and the one before of at most 2.
    euler_at_final: the last step is of order 1 however many there are.
    """

    lower_order_final: bool = True
    euler_at_final: bool = False


USUAL = Ending()


def dpm(
    denoise: Denoise,
    x: Tensor,
    sigmas: Nodes,
    order: int = 2,
    kind: Kind = "midpoint",
    callback: Callback | None = None,
    ending: Ending = USUAL,
) -> Tensor:
    """Sample by DPM-Solver++ multistep.

    Args:
        denoise: (x, sigma, index) -> velocity.
        x: the state at sigmas[0] [B, ...]; noise if that is (nearly) 1.
        sigmas: steps + 1 falling noise levels; any list, it may start below 1 and end above 0.
        order: 1, 2 or 3.
        kind: the formula of order 2.
        callback: called with the State after every step.
        ending: the orders of the last steps.

    Returns the state at sigmas[-1] [B, ...] float32. Raises RequestError for a bad order, kind or list of levels.
    """
    return last_state(iterate_dpm(denoise, x, sigmas, order, kind, ending), callback)


def iterate_dpm(
    denoise: Denoise,
    x: Tensor,
    sigmas: Nodes,
    order: int = 2,
    kind: Kind = "midpoint",
    ending: Ending = USUAL,
) -> Iterator[State]:
    """`dpm` as a generator of its states."""
    if order not in (1, 2, 3):
        raise RequestError(f"the order of the DPM solver must be 1, 2 or 3, not {order!r}")
    if kind not in get_args(Kind):
        raise RequestError(f"the kind of the DPM solver must be midpoint or heun, not {kind!r}")
    return _walk(denoise, x.float(), check_sigmas(sigmas), order, kind, ending)


def order_at(index: int, steps: int, order: int, to_zero: bool = True, ending: Ending = USUAL) -> int:
    """The order of step `index` (from 0) of `steps`: it rises with the history and falls at the end.

    The step to level 0 is of order 1, because lambda is infinite there; short runs also end so, and reach it in steps.
    """
    order = min(order, index + 1)
    falls = ending.lower_order_final and steps < SHORT
    if index == steps - 1 and (to_zero or falls or ending.euler_at_final):
        return 1
    if index == steps - 2 and falls:
        return min(order, 2)
    return order


def _walk(
    denoise: Denoise, x: Tensor, sigmas: list[float], order: int, kind: Kind, ending: Ending
) -> Iterator[State]:
    steps, to_zero = len(sigmas) - 1, sigmas[-1] == 0
    lambdas = [_half_log_snr(sigma) for sigma in sigmas]
    clean: list[Tensor] = []
    for index in range(steps):
        x0 = x0_from_velocity(x, denoise(x, sigmas[index], index).float(), sigmas[index])
        clean = [x0, *clean[: order - 1]]
        if sigmas[index + 1] == 0:
            x = x0
        else:
            used = order_at(index, steps, order, to_zero, ending)
            gaps = [lambdas[index + 1 - k] - lambdas[index - k] for k in range(used)]
            ratio = sigmas[index + 1] / sigmas[index]
            x = ratio * x + (1 - sigmas[index + 1]) * _clean_part(clean, gaps, kind)
        yield State(index, sigmas[index + 1], x, x0)


def _clean_part(clean: list[Tensor], gaps: list[float], kind: Kind) -> Tensor:
    """The integral over the clean prediction, without its factor alpha; the order is the number of gaps in lambda."""
    h, phi1 = gaps[0], math.expm1(-gaps[0])
    part = -phi1 * clean[0]
    if len(gaps) == 1:
        return part
    phi2 = phi1 / h + 1
    first = (h / gaps[1]) * (clean[0] - clean[1])
    if len(gaps) == 2:
        return part + (phi2 if kind == "heun" else -0.5 * phi1) * first
    r0, r1 = gaps[1] / h, gaps[2] / h
    bend = first - (clean[1] - clean[2]) / r1
    phi3 = phi2 / h - 0.5
    return part + phi2 * (first + (r0 / (r0 + r1)) * bend) - (phi3 / (r0 + r1)) * bend


def _half_log_snr(sigma: float) -> float:
    if sigma in (0, 1):
        return math.inf if sigma == 0 else -math.inf
    return math.log(1 - sigma) - math.log(sigma)
