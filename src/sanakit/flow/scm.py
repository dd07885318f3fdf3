"""The SANA-Sprint sampler: jump to the clean sample, add fresh noise at a lower angle, jump again.

    x0_i = cos(a_i) x_i - sin(a_i) F(x_i, a_i)          x_{i+1} = cos(a_{i+1}) x0_i + sin(a_{i+1}) n_i

It walks on the trig path of `path.py`, whose times are angles a; outside of this file they are noise levels like any
other solver's. The last step ends at angle 0, so it draws no noise and returns x0. One step goes from 1.57080 (pi/2,
rounded as the checkpoints have it) to 0; two pass through 1.3; other counts are even. State, data and noise have unit
variance here: with the sigma_data = 0.5 of the published sampler every term carries the same factor, which cancels.

Sources: Lu and Song 2024, "sCM", arXiv:2410.11081, section 2; Chen et al. 2025, "SANA-Sprint", arXiv:2503.09641.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

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

__all__ = ["SCM_HIGHEST", "scm", "scm_sigmas"]

_ANGLE_MAX = 1.57080  # pure noise, as the checkpoints have it: 4e-6 above pi/2
_ANGLE_MIDDLE = 1.3  # between the two steps of the usual two-step sampler
SCM_HIGHEST = time_from_angle(_ANGLE_MAX + 1e-6)
"""No noise level of this sampler is above it; the published first one is 1.0000037."""


def scm_sigmas(steps: int) -> list[float]:
    """Return the published noise levels, steps + 1 falling numbers that end in 0. Raises RequestError for steps < 1."""
    check_steps(steps)
    if steps == 2:
        angles = torch.tensor([_ANGLE_MAX, _ANGLE_MIDDLE, 0.0], device="cpu")
    else:
        angles = torch.linspace(_ANGLE_MAX, 0.0, steps + 1, device="cpu")
    return [time_from_angle(angle) for angle in angles.tolist()]


def scm(x: Tensor, sigmas: Sequence[float] | Tensor, noise: Noise | None = None) -> Solver:
    """Sample by consistency steps.

    Args:
        x: the state on the trig path [B, ...], unit variance, at the angle of sigmas[0]; noise if that is pi/2.
        sigmas: steps + 1 falling noise levels that end in 0; see `scm_sigmas`.
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
    """The angle of a noise level, in float32, in which the published sampler holds its angles."""
    return float(torch.tensor(angle_from_time(sigma), dtype=torch.float32, device="cpu"))
