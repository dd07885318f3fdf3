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

Traps avoided here. m is taken as x - s v: the published conversion goes through the noise and divides by 1-s, which is
3e-4 at the first level and loses everything in bf16. The step counter starts at 0 and is never looked up by an integer
time, which is ambiguous from 501 steps on. A last level of 0 is exactly the clean sample.
One trap is kept: for a clean sample that bends in lambda, D2 as published is half of h^2 m'', so order 3 follows
curvature half-way and still converges with order 2. diffusers computes the same, and images are compared with it.

Sources: Lu et al. 2022, "DPM-Solver++", arXiv:2211.01095, algorithm 2 and appendix A; Xie et al. 2024, "SANA",
arXiv:2410.10629, algorithm 1 (Flow-DPM-Solver). Orders at the ends are those of diffusers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from sanakit.base.errors import RequestError
from sanakit.flow.path import x0_from_velocity
from sanakit.flow.sampling import Query, Solver, check_sigmas
from sanakit.flow.schedule import Schedule

__all__ = ["dpm", "order_at"]

SHORT = 15
"""Below this number of steps the end of the trajectory may use lower orders, which is steadier."""

USUAL = Schedule()


def dpm(x: Tensor, sigmas: Sequence[float] | Tensor, order: int = 2, schedule: Schedule = USUAL) -> Solver:
    """Sample by DPM-Solver++ multistep.

    Args:
        x: the state at sigmas[0] [B, ...]; noise if that is (nearly) 1.
        sigmas: steps + 1 falling noise levels; any list, it may start below 1 and end above 0.
        order: 1, 2 or 3.
        schedule: its `solver_type` is the formula of order 2; its `lower_order_final` and `euler_at_final` decide on
            the orders of the last steps.

    Returns the state at sigmas[-1] [B, ...] float32. Raises RequestError for a bad order or list of levels.
    """
    if order not in (1, 2, 3):
        raise RequestError(f"the order of the DPM solver must be 1, 2 or 3, not {order!r}")
    x, sigmas = x.float(), check_sigmas(sigmas)
    steps, to_zero, heun = len(sigmas) - 1, sigmas[-1] == 0, schedule.solver_type == "heun"
    lambdas = [_half_log_snr(sigma) for sigma in sigmas]
    clean: list[Tensor] = []  # newest first
    for step in range(steps):
        velocity = yield Query(x, sigmas[step], step)
        x0 = x0_from_velocity(x, velocity, sigmas[step])
        clean = [x0, *clean[: order - 1]]
        if sigmas[step + 1] == 0:
            x = x0
        else:
            used = order_at(step, steps, order, to_zero, schedule)
            gaps = [lambdas[step + 1 - k] - lambdas[step - k] for k in range(used)]
            ratio = sigmas[step + 1] / sigmas[step]
            x = ratio * x + (1 - sigmas[step + 1]) * _clean_part(clean, gaps, heun)
    return x


def order_at(step: int, steps: int, order: int, to_zero: bool = True, schedule: Schedule = USUAL) -> int:
    """Return the order of `step` (from 0) of `steps`: it rises with the history and falls at the end.

    The step to level 0 is of order 1, because lambda is infinite there; short runs also end so, and reach it in steps.
    """
    order = min(order, step + 1)
    falls = schedule.lower_order_final and steps < SHORT
    if step == steps - 1 and (to_zero or falls or schedule.euler_at_final):
        return 1
    if step == steps - 2 and falls:
        return min(order, 2)
    return order


def _clean_part(clean: list[Tensor], gaps: list[float], heun: bool) -> Tensor:
    """Integrate the clean prediction, without its factor alpha; the order is the number of gaps in lambda."""
    h, phi1 = gaps[0], math.expm1(-gaps[0])
    part = -phi1 * clean[0]
    if len(gaps) == 1:
        return part
    phi2 = phi1 / h + 1
    first = (h / gaps[1]) * (clean[0] - clean[1])
    if len(gaps) == 2:
        return part + (phi2 if heun else -0.5 * phi1) * first
    r0, r1 = gaps[1] / h, gaps[2] / h
    bend = first - (clean[1] - clean[2]) / r1
    phi3 = phi2 / h - 0.5
    return part + phi2 * (first + (r0 / (r0 + r1)) * bend) - (phi3 / (r0 + r1)) * bend


def _half_log_snr(sigma: float) -> float:
    if sigma in (0, 1):
        return math.inf if sigma == 0 else -math.inf
    return math.log(1 - sigma) - math.log(sigma)
