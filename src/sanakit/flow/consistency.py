"""The SANA-Sprint sampler: jump to the clean sample, add fresh noise at a lower angle, jump again.

    x0_i = cos(a_i) x_i - sin(a_i) F(x_i, a_i)          x_{i+1} = cos(a_{i+1}) x0_i + sin(a_{i+1}) n_i

The last step ends at angle 0, so it draws no noise and returns x0. One step goes from 1.57080 (pi/2, rounded as the
checkpoints have it) to 0; two pass through 1.3; other counts are even. State, data and noise have unit variance here:
with the sigma_data = 0.5 of the published sampler every term carries the same factor, which drops out exactly.

Sources: Lu and Song 2024, "sCM", arXiv:2410.11081, section 2; Chen et al. 2025, "SANA-Sprint", arXiv:2503.09641.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from sanakit.base.errors import RequestError
from sanakit.flow.path import TrigPath, time_from_angle
from sanakit.flow.prediction import TrigDenoise, x0_from_trig
from sanakit.flow.solver import Callback, Nodes, State, last_state
from sanakit.flow.times import check_steps

__all__ = ["ANGLE_MAX", "ANGLE_MIDDLE", "Noise", "angles", "check_angles", "iterate_scm", "scm"]

ANGLE_MAX = 1.57080
"""The angle of pure noise, as the checkpoints have it; 4e-6 above pi/2."""

ANGLE_MIDDLE = 1.3
"""The angle between the two steps of the usual two-step sampler."""

Noise = Callable[[int], Tensor]
"""noise(step) -> standard normal [B, ...] to add after step 0, 1, ...; see base/noise.py for seeded noise."""


def angles(steps: int, middle: float | None = ANGLE_MIDDLE, start: float = ANGLE_MAX) -> Tensor:
    """Angles of a sampler, [steps+1] float32, from `start` to 0; `middle` counts for two steps only.

    Raises RequestError for steps < 1.
    """
    check_steps(steps)
    if steps == 2 and middle is not None:
        return torch.tensor([start, middle, 0.0], device="cpu")
    return torch.linspace(start, 0.0, steps + 1, device="cpu")


def check_angles(values: Nodes) -> list[float]:
    """The angles as numbers; RequestError unless at least two, falling, from at most pi/2 (rounded up) to 0."""
    result = [float(value) for value in values]
    falling = all(high > low for high, low in zip(result, result[1:], strict=False))
    if len(result) < 2 or not falling or result[-1] != 0 or not result[0] <= ANGLE_MAX + 1e-6:
        raise RequestError("angles must be at least two falling numbers from at most 1.5708 down to 0")
    return result


def scm(
    denoise: TrigDenoise,
    x: Tensor,
    nodes: Nodes,
    noise: Noise | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Sample by consistency steps.

    Args:
        denoise: (x, angle, index) -> F; for a network of the linear path, `trigflow(network)`.
        x: the state at nodes[0] [B, ...], unit variance; noise if that is ANGLE_MAX.
        nodes: steps + 1 falling angles that end in 0; see `angles`.
        noise: fresh noise for every step but the last; one step needs none.
        callback: called with the State after every step; its sigma is the linear time of the angle reached.

    Returns the clean sample [B, ...] float32. Raises RequestError for bad angles or missing noise.
    """
    return last_state(iterate_scm(denoise, x, nodes, noise), callback)


def iterate_scm(denoise: TrigDenoise, x: Tensor, nodes: Nodes, noise: Noise | None = None) -> Iterator[State]:
    """`scm` as a generator of its states."""
    values = check_angles(nodes)
    if noise is None and len(values) > 2:
        raise RequestError(
            "the consistency sampler adds fresh noise between its steps: give it a noise function"
        )
    return _walk(denoise, x.float(), values, noise)


def _walk(denoise: TrigDenoise, x: Tensor, nodes: list[float], noise: Noise | None) -> Iterator[State]:
    path = TrigPath()
    for index, (angle, following) in enumerate(zip(nodes, nodes[1:], strict=False)):
        x0 = x0_from_trig(x, denoise(x, angle, index).float(), angle)
        x = x0 if noise is None or following == 0 else path.point(x0, noise(index).to(x0), following)
        yield State(index, time_from_angle(following), x, x0)
