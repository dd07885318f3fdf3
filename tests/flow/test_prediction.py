"""Predictions: a perfect velocity gives the clean sample on both paths, by the formulas of the Sprint pipeline."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sanakit.flow.path import LinearPath, TrigPath, linear_scale, time_from_angle
from sanakit.flow.prediction import trig_from_velocity, x0_from_trig, x0_from_velocity


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    x0, noise = torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x0, noise


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
