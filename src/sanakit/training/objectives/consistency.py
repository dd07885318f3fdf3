"""The loss of a continuous-time consistency model (sCM) on the TrigFlow path, as pure functions.

A consistency model f(x, a) = cos(a) x - sin(a) F(x, a) jumps from any point of a trajectory to its end, so f is the
same along it. With the teacher's velocity dx/da the derivative along the trajectory, times cos(a), is

    g = -cos^2 (F - dx/da) - r (cos sin x + cos sin dF/da)          dF/da = the tangent of F in direction (dx/da, 1)

and the loss moves F by g / (|g| + c), weighted by 1 / (0.5 tan a) and by the loss that is usual at that time. r rises
from 0 to 1: at first the student copies the teacher's velocity.

State, data and noise have unit variance here. The published formulas carry sigma_data = 0.5: their x, dx/da and g are
0.5 times ours, and F is the same. So their c = 0.1 is 0.1 / 0.5 for our g; angles and weights are theirs.

Sources: Lu and Song 2024, "sCM", arXiv:2410.11081, section 4 and algorithm 1; Chen et al. 2025, "SANA-Sprint",
arXiv:2503.09641, section 3. Where we deviate from the published code: docs/sprint.md.

Letters: B samples; a point x, a velocity F and everything like them are [B, C, h, w]; angles are [B], radians.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from sanakit.flow.path import broadcast_time, linear_scale, time_from_angle

SIGMA_DATA = 0.5
"""Deviation of the data in the published formulas."""

DIFFERENCE = 5e-3
"""Half the width of a central difference: float32 rounds it to 1e-5, and the curvature of F adds about as much."""

Flow = Callable[[Tensor, Tensor], Tensor]
"""(x, angle) -> velocity F of the TrigFlow path."""


def angles(normal: Tensor, mean: float, std: float) -> Tensor:
    """Turn standard normal numbers n into angles atan(exp(mean + std n) / 0.5)."""
    return torch.atan((mean + std * normal).exp() / SIGMA_DATA)


def linear_point(x: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Return a point of the TrigFlow path as one of the linear path, [B, C, h, w], and its time in 0..1, [B].

    A flow model is asked there, and `trig_from_velocity` makes F of its answer (SANA-Sprint, theorem 3.1).
    """
    s = time_from_angle(angle)
    return x * broadcast_time(linear_scale(s), x), s


def exact_tangent(flow: Flow, x: Tensor, angle: Tensor, dx: Tensor) -> Tensor:
    """cos sin dF/da by forward-mode differentiation, without gradients.

    The factor is in the directions, so that nothing grows near pure noise (sCM, section 4.1). Softmax attention is
    computed by plain products: the fused ones carry no tangents.
    """
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), forward_ad.dual_level():
        across, along = _directions(x, angle, dx)
        out = flow(forward_ad.make_dual(x, across), forward_ad.make_dual(angle, along))
        tangent: Tensor = forward_ad.unpack_dual(out).tangent
        return tangent


def difference_tangent(flow: Flow, x: Tensor, angle: Tensor, dx: Tensor) -> Tensor:
    """Return the same by central differences, in float32. flow: takes twice the samples, those ahead first."""
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        across, along = (DIFFERENCE * direction for direction in _directions(x, angle, dx))
        points, times = torch.cat([x + across, x - across]), torch.cat([angle + along, angle - along])
        ahead, behind = flow(points, times).chunk(2)
        return (ahead - behind) / (2 * DIFFERENCE)


def _directions(x: Tensor, angle: Tensor, dx: Tensor) -> tuple[Tensor, Tensor]:
    """cos sin (dx/da, 1): where point and angle go along the trajectory."""
    along = angle.cos() * angle.sin()
    return dx * broadcast_time(along, x), along


def direction(x: Tensor, angle: Tensor, trig: Tensor, dx: Tensor, tangent: Tensor, share: float) -> Tensor:
    """g [B, ...]: where the student should move F.

    trig: F. dx: the teacher's velocity. tangent: cos sin dF/da. share: r, how much of the derivative counts.
    """
    cos, sin = (broadcast_time(value, x) for value in (angle.cos(), angle.sin()))
    return -(cos**2) * (trig - dx) - share * (cos * sin * x + tangent)


def normalised(g: Tensor, constant: float, norm: Literal["sum", "mean"] = "sum") -> Tensor:
    """g / (|g| + c) for every sample. constant: as published, for data of deviation 0.5.

    norm: "sum" is the Euclidean norm over channels and positions, "mean" that divided by the root of their number.
    """
    length = torch.linalg.vector_norm(g.flatten(1), dim=1)
    if norm == "mean":
        length = length / g[0].numel() ** 0.5
    return g / broadcast_time(length + constant / SIGMA_DATA, g)


def weights(angle: Tensor, least: float) -> Tensor:
    """1 / max(0.5 tan a, least): the inverse of the noise level, [B]."""
    cos = angle.cos()
    return cos / torch.maximum(SIGMA_DATA * angle.sin(), least * cos)


def consistency_loss(trig: Tensor, moved: Tensor, weight: Tensor, usual: Tensor | None = None) -> Tensor:
    """Return the mean of weight / exp(usual) |F - moved|^2 + usual, a scalar.

    trig: F with its gradient. moved: F + g, without. weight: [B]. usual: the logarithm of the loss that is usual at
    these times, [B], learnt along; None for 0.
    """
    errors = (trig - moved.detach()).square().flatten(1).mean(1)
    if usual is None:
        return (weight * errors).mean()
    return (weight * errors * (-usual).exp() + usual).mean()
