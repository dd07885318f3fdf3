"""Paths: targets are derivatives, both are one ray, and a perfect velocity gives the clean sample back."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sanakit.flow.path import (
    LinearPath,
    TrigPath,
    angle_from_time,
    broadcast_time,
    linear_scale,
    time_from_angle,
    trig_from_velocity,
    x0_from_trig,
    x0_from_velocity,
)

Path = LinearPath | TrigPath


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 3, 4, 2, 2, generator=generator, dtype=torch.float64)
    return x0, noise


@pytest.mark.parametrize("path", [LinearPath(), TrigPath()])
def test_target_is_the_derivative_of_point(path: Path, pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    t, step = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64), 1e-6
    slope = (path.point(*pair, t + step) - path.point(*pair, t - step)) / (2 * step)
    torch.testing.assert_close(slope, path.target(*pair, t), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("path, end", [(LinearPath(), 1.0), (TrigPath(), math.pi / 2)])
def test_paths_run_from_data_to_noise(
    path: Path, end: float, pair: tuple[torch.Tensor, torch.Tensor]
) -> None:
    torch.testing.assert_close(path.point(*pair, 0.0), pair[0])
    torch.testing.assert_close(path.point(*pair, end), pair[1])


def test_a_time_per_sample_equals_one_time_each(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    x0, noise = pair
    t = torch.tensor([0.2, 0.4, 0.6], dtype=torch.float64)
    together = LinearPath().point(x0, noise, t)
    for k in range(3):
        assert torch.equal(together[k], LinearPath().point(x0[k], noise[k], float(t[k])))
    assert broadcast_time(t, x0).shape == (3, 1, 1, 1)  # type: ignore[union-attr]
    assert broadcast_time(0.5, x0) == 0.5


@pytest.mark.parametrize("angle", [0.0, 0.3, 0.7854, 1.3, 1.57])
def test_the_linear_point_is_the_scaled_trig_point(
    angle: float, pair: tuple[torch.Tensor, torch.Tensor]
) -> None:
    s = time_from_angle(angle)
    assert angle_from_time(s) == pytest.approx(angle)
    assert linear_scale(s) == pytest.approx(1 / (math.sin(angle) + math.cos(angle)))
    torch.testing.assert_close(LinearPath().point(*pair, s), linear_scale(s) * TrigPath().point(*pair, angle))


def test_time_conversions_take_tensors() -> None:
    angle = torch.tensor([0.2, 1.0, 1.5])
    s = time_from_angle(angle)
    torch.testing.assert_close(angle_from_time(s), angle)
    torch.testing.assert_close(linear_scale(s), 1 / (angle.sin() + angle.cos()))


@pytest.mark.parametrize("t", [0.0, 0.05, 0.5, 1.0, torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)])
def test_the_velocity_gives_the_clean_sample(t: float | Tensor, pair: tuple[Tensor, Tensor]) -> None:
    x, v = LinearPath().point(*pair, t), LinearPath().target(*pair, t)
    torch.testing.assert_close(x0_from_velocity(x, v, t), pair[0])


@pytest.mark.parametrize("angle", [0.1, 0.8, 1.3, 1.57])
def test_a_perfect_velocity_becomes_a_perfect_trig_target(angle: float, pair: tuple[Tensor, Tensor]) -> None:
    x0, noise = pair
    s = time_from_angle(angle)
    trig = trig_from_velocity(LinearPath().point(x0, noise, s), LinearPath().target(x0, noise), s)
    torch.testing.assert_close(trig, TrigPath().target(x0, noise, angle))
    torch.testing.assert_close(x0_from_trig(TrigPath().point(x0, noise, angle), trig, angle), x0)


def test_trig_conversion_takes_a_time_per_sample(pair: tuple[Tensor, Tensor]) -> None:
    x, v = pair
    s = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    together = trig_from_velocity(x, v, s)
    for k in range(3):
        torch.testing.assert_close(together[k], trig_from_velocity(x[k], v[k], float(s[k])))


@pytest.mark.parametrize("angle", [1.57080, 1.3, 0.7, 0.05])
def test_the_trig_velocity_equals_the_formulas_of_the_sprint_pipeline(angle: float) -> None:
    latents = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(1)) * 0.5
    # diffusers, SanaSprintPipeline: float32 throughout, sigma_data = 0.5 kept in the state.
    t = torch.full((2,), angle)
    s = (torch.sin(t) / (torch.cos(t) + torch.sin(t))).view(-1, 1, 1, 1)
    r = torch.sqrt(s**2 + (1 - s) ** 2)
    scaled = latents / 0.5 * r
    theirs = ((1 - 2 * s) * scaled + (1 - 2 * s + 2 * s**2) * (torch.sin(2 * scaled) + s)) / r
    time = time_from_angle(angle)
    linear = latents / 0.5 * linear_scale(time)
    ours = trig_from_velocity(linear, torch.sin(2 * linear) + time, time)
    assert float((ours - theirs).abs().max() / theirs.abs().max()) < 1e-6
    assert time == pytest.approx(float(s[0]), rel=1e-6)
