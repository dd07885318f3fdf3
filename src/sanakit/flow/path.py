"""Paths between data and noise: the point at time t, the velocity that a network learns there, and back to the data.

    linear   x_t = (1-t) x0 + t n          dx/dt = n - x0                t in [0, 1]        (SANA, eq. 1; SiT)
    trig     x_a = cos(a) x0 + sin(a) n    dx/da = cos(a) n - sin(a) x0  a in [0, pi/2]     (sCM, section 3)

Both draw the same rays x0-n, run through at another pace and another scale. The point of the linear path at
time s is the point of the trig path at angle a times r, with

    s = sin(a) / (sin(a) + cos(a))         r = sqrt(s^2 + (1-s)^2) = 1 / (sin(a) + cos(a))

A velocity v gives the clean sample x0 = x - t v of the linear path, which is accurate at every t. (Through the noise
n = x + (1-t) v it would divide by 1-t and lose everything near t = 1.) A network trained on the linear path also
predicts the trig velocity F = dx/da (SANA-Sprint, theorem 3.1): ask it at the point r x_trig and time s, and combine

    F = ((1-2s) r x_trig + (1-2s+2s^2) v) / r

Sources: Xie et al. 2024, "SANA", arXiv:2410.10629; Lu and Song 2024, "Simplifying, stabilizing and scaling
continuous-time consistency models", arXiv:2410.11081; Chen et al. 2025, "SANA-Sprint", arXiv:2503.09641.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

__all__ = [
    "LinearPath",
    "Time",
    "TrigPath",
    "angle_from_time",
    "broadcast_time",
    "linear_scale",
    "time_from_angle",
    "trig_from_velocity",
    "x0_from_trig",
    "x0_from_velocity",
]

Time = float | Tensor
"""One time for all samples (a number or a 0-d tensor), or one per sample [B]."""

T = TypeVar("T", float, Tensor, Time)


@dataclass(frozen=True)
class LinearPath:
    """The straight path of flow matching, which the SANA checkpoints were trained on."""

    def point(self, x0: Tensor, noise: Tensor, t: Time) -> Tensor:
        """Return (1-t) x0 + t noise for x0 and noise [B, ...]."""
        t = broadcast_time(t, x0)
        return (1 - t) * x0 + t * noise

    def target(self, x0: Tensor, noise: Tensor, t: Time = 0.0) -> Tensor:
        """Return the velocity noise - x0 [B, ...], the same at every t."""
        return noise - x0


@dataclass(frozen=True)
class TrigPath:
    """The circular path of TrigFlow, which keeps unit variance; times are angles in radians."""

    def point(self, x0: Tensor, noise: Tensor, t: Time) -> Tensor:
        """Return cos(t) x0 + sin(t) noise for x0 and noise [B, ...]."""
        t = broadcast_time(t, x0)
        return _cos(t) * x0 + _sin(t) * noise

    def target(self, x0: Tensor, noise: Tensor, t: Time) -> Tensor:
        """Return cos(t) noise - sin(t) x0 [B, ...]."""
        t = broadcast_time(t, x0)
        return _cos(t) * noise - _sin(t) * x0


def broadcast_time(t: Time, like: Tensor) -> Time:
    """Give a time per sample [B] the shape [B, 1, ...] that multiplies `like`; single times pass through."""
    if isinstance(t, Tensor) and t.ndim == 1:
        return t.reshape(-1, *[1] * (like.ndim - 1))
    return t


def time_from_angle(angle: T) -> T:
    """Return the linear time s = sin/(sin+cos) of the ray that the angle (radians) points at."""
    sin, cos = _sin(angle), _cos(angle)
    return sin / (sin + cos)


def angle_from_time(s: T) -> T:
    """Return the angle atan2(s, 1-s) in radians; the inverse of `time_from_angle`."""
    if isinstance(s, Tensor):
        return torch.atan2(s, 1 - s)
    return math.atan2(s, 1 - s)


def linear_scale(s: T) -> T:
    """Return the factor r = sqrt(s^2 + (1-s)^2): a trig point times r is the linear point at time s."""
    square = s * s + (1 - s) * (1 - s)
    return torch.sqrt(square) if isinstance(square, Tensor) else math.sqrt(square)


def x0_from_velocity(x: Tensor, velocity: Tensor, t: Time) -> Tensor:
    """Return the clean sample x - t v [B, ...]; accurate at every t."""
    return x - broadcast_time(t, x) * velocity


def trig_from_velocity(x: Tensor, velocity: Tensor, s: Time) -> Tensor:
    """Return the trig velocity F [B, ...] from a point x of the linear path, the velocity there and its time s."""
    s = broadcast_time(s, x)
    return ((1 - 2 * s) * x + (1 - 2 * s + 2 * s * s) * velocity) / linear_scale(s)


def x0_from_trig(x: Tensor, trig: Tensor, angle: Time) -> Tensor:
    """Return the clean sample cos(a) x - sin(a) F [B, ...] from a point x of the trig path."""
    return TrigPath().point(x, -trig, angle)


def _cos(angle: T) -> T:
    return torch.cos(angle) if isinstance(angle, Tensor) else math.cos(angle)


def _sin(angle: T) -> T:
    return torch.sin(angle) if isinstance(angle, Tensor) else math.sin(angle)
