"""Predictions: the clean sample from a velocity, on the linear path and on the trig path.

On the linear path x_t = (1-t) x0 + t n with v = n - x0:

    x0 = x - t v

which is accurate at every t. (Through the noise n = x + (1-t) v it would divide by 1-t and lose everything near t = 1.)

A network trained on the linear path also predicts the trig velocity F = cos(a) n - sin(a) x0 (SANA-Sprint, theorem
3.1): with s and r of `path.py`, ask it at the point r x_trig and time s, and combine

    F = ((1-2s) r x_trig + (1-2s+2s^2) v) / r

Source: Chen et al. 2025, "SANA-Sprint", arXiv:2503.09641, section 3.1.
"""

from __future__ import annotations

from torch import Tensor

from sanakit.flow.path import Time, TrigPath, broadcast_time, linear_scale

__all__ = ["trig_from_velocity", "x0_from_trig", "x0_from_velocity"]


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
