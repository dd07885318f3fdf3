"""Predictions: conversions undo each other, and the trig dress is that of diffusers' Sprint pipeline."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sanakit.flow import (
    LinearPath,
    TrigPath,
    noise_from_velocity,
    time_from_angle,
    trig_from_velocity,
    trigflow,
    velocity_from_noise,
    velocity_from_trig,
    velocity_from_x0,
    x0_from_noise,
    x0_from_trig,
    x0_from_velocity,
)


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    x0, noise = torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x0, noise


@pytest.mark.parametrize("t", [0.05, 0.5, 0.95, torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)])
def test_every_form_gives_every_other(t: float | Tensor, pair: tuple[Tensor, Tensor]) -> None:
    x0, noise = pair
    x, v = LinearPath().point(x0, noise, t), LinearPath().target(x0, noise, t)
    torch.testing.assert_close(x0_from_velocity(x, v, t), x0)
    torch.testing.assert_close(noise_from_velocity(x, v, t), noise)
    torch.testing.assert_close(velocity_from_x0(x, x0, t), v)
    torch.testing.assert_close(velocity_from_noise(x, noise, t), v)
    torch.testing.assert_close(x0_from_noise(x, noise, t), x0)


@pytest.mark.parametrize("angle", [0.1, 0.8, 1.3, 1.57])
def test_a_perfect_velocity_becomes_a_perfect_trig_target(angle: float, pair: tuple[Tensor, Tensor]) -> None:
    x0, noise = pair
    s = time_from_angle(angle)
    x, v = LinearPath().point(x0, noise, s), LinearPath().target(x0, noise)
    trig = trig_from_velocity(x, v, s)
    torch.testing.assert_close(trig, TrigPath().target(x0, noise, angle))
    torch.testing.assert_close(velocity_from_trig(x, trig, s), v)
    torch.testing.assert_close(x0_from_trig(TrigPath().point(x0, noise, angle), trig, angle), x0)


def test_trig_conversion_takes_a_time_per_sample(pair: tuple[Tensor, Tensor]) -> None:
    x, v = pair
    s = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    together = trig_from_velocity(x, v, s)
    for k in range(3):
        torch.testing.assert_close(together[k], trig_from_velocity(x[k], v[k], float(s[k])))
    torch.testing.assert_close(velocity_from_trig(x, together, s), v)


@pytest.mark.parametrize("angle", [1.57080, 1.3, 0.7, 0.05])
def test_trigflow_equals_the_formulas_of_the_sprint_pipeline(angle: float) -> None:
    latents = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(1)) * 0.5
    asked: list[float] = []

    def network(x: Tensor, s: float, index: int) -> Tensor:
        asked.append(s)
        return torch.sin(2 * x) + s

    # diffusers, SanaSprintPipeline: float32 throughout, sigma_data = 0.5 kept in the state.
    t = torch.full((2,), angle)
    s = (torch.sin(t) / (torch.cos(t) + torch.sin(t))).view(-1, 1, 1, 1)
    r = torch.sqrt(s**2 + (1 - s) ** 2)
    scaled = latents / 0.5 * r
    theirs = ((1 - 2 * s) * scaled + (1 - 2 * s + 2 * s**2) * (torch.sin(2 * scaled) + s)) / r
    ours = trigflow(network)(latents / 0.5, angle, 0)
    assert float((ours - theirs).abs().max() / theirs.abs().max()) < 1e-6
    assert asked[0] == pytest.approx(float(s[0]), rel=1e-6)
