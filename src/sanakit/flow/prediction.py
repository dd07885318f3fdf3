"""Predictions: velocity, clean sample and noise are one answer in three forms; linear and trig flow are two dresses.

On the linear path x_t = (1-t) x0 + t n with v = n - x0:

    x0 = x - t v        n = x + (1-t) v        v = (x - x0)/t = (n - x)/(1-t)

The forms from velocity are exact at every t; those that divide are ill-conditioned near t = 0 (from x0) and near
t = 1 (from noise), so nothing in the samplers uses them.

A network trained on the linear path also predicts the trig velocity F = cos(a) n - sin(a) x0 (SANA-Sprint, theorem
3.1): with s and r of `path.py`, ask it at the point r x_trig and time s, and combine

    F = ((1-2s) r x_trig + (1-2s+2s^2) v) / r

Source: Chen et al. 2025, "SANA-Sprint", arXiv:2503.09641, section 3.1.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from sanakit.flow.path import Time, TrigPath, broadcast_time, linear_scale, time_from_angle
from sanakit.flow.solver import Denoise

__all__ = [
    "TrigDenoise",
    "noise_from_velocity",
    "trig_from_velocity",
    "trigflow",
    "velocity_from_noise",
    "velocity_from_trig",
    "velocity_from_x0",
    "x0_from_noise",
    "x0_from_trig",
    "x0_from_velocity",
]

TrigDenoise = Callable[[Tensor, float, int], Tensor]
"""denoise(x [B, ...] on the trig path with unit variance, angle in radians, step index) -> F [B, ...]."""


def x0_from_velocity(x: Tensor, velocity: Tensor, t: Time) -> Tensor:
    """The clean sample x - t v [B, ...]; accurate at every t."""
    return x - broadcast_time(t, x) * velocity


def noise_from_velocity(x: Tensor, velocity: Tensor, t: Time) -> Tensor:
    """The noise x + (1-t) v [B, ...]; accurate at every t."""
    return x + (1 - broadcast_time(t, x)) * velocity


def velocity_from_x0(x: Tensor, x0: Tensor, t: Time) -> Tensor:
    """The velocity (x - x0) / t [B, ...]; loses digits as t falls to 0."""
    return (x - x0) / broadcast_time(t, x)


def velocity_from_noise(x: Tensor, noise: Tensor, t: Time) -> Tensor:
    """The velocity (n - x) / (1-t) [B, ...]; loses digits as t rises to 1."""
    return (noise - x) / (1 - broadcast_time(t, x))


def x0_from_noise(x: Tensor, noise: Tensor, t: Time) -> Tensor:
    """The clean sample (x - t n) / (1-t) [B, ...]; loses digits as t rises to 1, in bf16 all of them at 0.99967."""
    t = broadcast_time(t, x)
    return (x - t * noise) / (1 - t)


def trig_from_velocity(x: Tensor, velocity: Tensor, s: Time) -> Tensor:
    """The trig velocity F [B, ...] from a point x of the linear path, the velocity there and its time s."""
    s = broadcast_time(s, x)
    return ((1 - 2 * s) * x + (1 - 2 * s + 2 * s * s) * velocity) / linear_scale(s)


def velocity_from_trig(x: Tensor, trig: Tensor, s: Time) -> Tensor:
    """The linear velocity [B, ...] from a point x of the linear path, F and s: the inverse of `trig_from_velocity`."""
    s = broadcast_time(s, x)
    return (linear_scale(s) * trig - (1 - 2 * s) * x) / (1 - 2 * s + 2 * s * s)


def x0_from_trig(x: Tensor, trig: Tensor, angle: Time) -> Tensor:
    """The clean sample cos(a) x - sin(a) F [B, ...] from a point x of the trig path."""
    return TrigPath().point(x, -trig, angle)


def trigflow(denoise: Denoise) -> TrigDenoise:
    """Dress a velocity network of the linear path as a trig network; training-free.

    `denoise` is called with the linear time s in [0, 1] of the angle. Data and noise have unit variance on both sides:
    the sigma_data of the published sampler scales the state up and down again and cancels.
    """

    def predict(x: Tensor, angle: float, index: int) -> Tensor:
        s = time_from_angle(angle)
        linear = x.float() * linear_scale(s)
        return trig_from_velocity(linear, denoise(linear, s, index).float(), s)

    return predict
