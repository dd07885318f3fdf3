"""Paths: their targets are their derivatives, and the two of them are one ray."""

from __future__ import annotations

import math

import pytest
import torch

from sanakit.flow.path import (
    LinearPath,
    TrigPath,
    angle_from_time,
    broadcast_time,
    linear_scale,
    time_from_angle,
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
