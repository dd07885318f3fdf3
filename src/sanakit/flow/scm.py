"""The SANA-Sprint sampler: jump to the clean sample, add fresh noise at a lower angle, jump again.

    x0_i = cos(a_i) x_i - sin(a_i) F(x_i, a_i)          x_{i+1} = cos(a_{i+1}) x0_i + sin(a_{i+1}) n_i

It walks on the trig path of `path.py`, whose times are angles a; outside of this file they are noise levels like any
other solver's. The last step ends at angle 0, so it draws no noise and returns x0. The first one begins at 1.57080
(pi/2, rounded as the checkpoints have it); `ANGLES` has the rest for up to four steps, other counts are even. State,
data and noise have unit variance here: with the sigma_data = 0.5 of the published sampler every term carries the same
factor, which cancels.

Sources: Lu and Song 2024, "sCM", arXiv:2410.11081, section 2; Chen et al. 2025, "SANA-Sprint", arXiv:2503.09641.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from sanakit.base.bounds import MAX_ANGLE
from sanakit.base.errors import RequestError
from sanakit.flow.path import (
    TrigPath,
    angle_from_time,
    linear_scale,
    time_from_angle,
    trig_from_velocity,
    x0_from_trig,
)
from sanakit.flow.sampling import Noise, Query, Solver, check_sigmas
from sanakit.flow.times import check_steps

__all__ = ["ANGLES", "SCM_HIGHEST", "lowered_sigmas", "scm", "scm_angles", "scm_sigmas"]

ANGLES: dict[int, tuple[float, ...]] = {
    1: (MAX_ANGLE,),
    2: (MAX_ANGLE, 1.3),
    3: (MAX_ANGLE, 1.3, 0.8),
    4: (MAX_ANGLE, 1.3, 1.1, 0.6),
}
"""Steps -> the angle at which each begins: the published ones of SANA-Sprint, which has none for 3 steps.

Ours for 3 are those for 4 with one jump in place of the last two, from near their middle (0.85). diffusers has those
for 1 and 2 steps, and even ones for any other count unless it is given `timesteps`.
"""
SCM_HIGHEST = time_from_angle(MAX_ANGLE + 1e-6)
"""No noise level of this sampler is above it; the published first one is 1.0000037."""


def scm_angles(steps: int, own: Sequence[tuple[float, ...]] = ()) -> list[float]:
    """Return the angles (radians) of a number of steps, and 0: those of `ANGLES`, else steps + 1 even ones.

    own: a model's, which go before those of `ANGLES` with as many steps. Raises RequestError for steps < 1.
    """
    check_steps(steps)
    known = ANGLES | {len(angles): angles for angles in own}
    if steps in known:
        return [*known[steps], 0.0]
    return [float(angle) for angle in torch.linspace(MAX_ANGLE, 0.0, steps + 1, device="cpu")]


def lowered_sigmas(sigmas: Sequence[float], level: float) -> list[float]:
    """Return the noise levels of as many steps that begin at a level in 0..1: their angles fall in proportion.

    sigmas: of a sampler that begins at pure noise; a level of 1 leaves them as they are.
    """
    share = angle_from_time(level) / (math.pi / 2)
    return scm_sigmas([share * angle_from_time(sigma) for sigma in sigmas])


def scm_sigmas(angles: Sequence[float]) -> list[float]:
    """Return the noise levels of falling angles (radians), which are rounded to float32 first, as in diffusers."""
    return [
        time_from_angle(float(angle)) for angle in torch.tensor(angles, dtype=torch.float32, device="cpu")
    ]


def scm(x: Tensor, sigmas: Sequence[float] | Tensor, noise: Noise | None = None) -> Solver:
    """Sample by consistency steps.

    Args:
        x: the state on the trig path [B, ...], unit variance, at the angle of sigmas[0]; noise if that is pi/2.
        sigmas: steps + 1 falling noise levels that end in 0; see `scm_angles` and `scm_sigmas`.
        noise: fresh noise for every step but the last; one step needs none.

    Returns the clean sample [B, ...] float32. Raises RequestError for bad levels or missing noise.
    """
    sigmas = check_sigmas(sigmas, SCM_HIGHEST)
    if sigmas[-1] != 0:
        raise RequestError("the consistency sampler must end at noise level 0")
    if noise is None and len(sigmas) > 2:
        raise RequestError(
            "the consistency sampler adds fresh noise between its steps: give it a noise function"
        )
    x, path = x.float(), TrigPath()
    for step, (sigma, next_sigma) in enumerate(pairwise(sigmas)):
        linear = x * linear_scale(sigma)
        velocity = yield Query(linear, sigma, step)
        x0 = x0_from_trig(x, trig_from_velocity(linear, velocity, sigma), _angle(sigma))
        x = x0 if noise is None or next_sigma == 0 else path.point(x0, noise(step).to(x0), _angle(next_sigma))
    return x


def _angle(sigma: float) -> float:
    """Return the angle of a noise level, in float32, in which the published sampler holds its angles."""
    return float(torch.tensor(angle_from_time(sigma), dtype=torch.float32, device="cpu"))
