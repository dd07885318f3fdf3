"""Guidance: the formulas, which branches a step asks for, and the interval."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sanakit.base import RequestError
from sanakit.flow import Branch, Guidance, ShiftedTimes
from sanakit.flow.dpm import dpm
from sanakit.flow.guidance import cfg, pag
from tests.flow.toys import sample

ANSWERS: dict[Branch, Tensor] = {
    "uncond": torch.tensor([1.0, -2.0]),
    "cond": torch.tensor([3.0, 5.0]),
    "perturbed": torch.tensor([0.5, 4.0]),
}


def test_formulas() -> None:
    u, c, q = ANSWERS.values()
    assert torch.equal(cfg(u, c, 4.5), u + 4.5 * (c - u))
    assert torch.equal(cfg(u, c, 0.0), u)
    torch.testing.assert_close(cfg(u, c, 1.0), c)
    assert torch.equal(pag(c, c, q, 3.0), c + 3.0 * (c - q))
    torch.testing.assert_close(pag(cfg(u, c, 4.5), c, q, 2.0), u + 4.5 * (c - u) + 2.0 * (c - q))


def test_guiding_the_velocity_is_guiding_the_noise() -> None:
    x, u, c, q = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def noise(velocity: Tensor) -> Tensor:
        return x + 0.3 * velocity

    guided = noise(pag(cfg(u, c, 4.5), c, q, 2.0))
    torch.testing.assert_close(guided, pag(cfg(noise(u), noise(c), 4.5), noise(c), noise(q), 2.0))


@pytest.mark.parametrize(
    "settings, branches, expected",
    [
        ({}, ("cond",), [3.0, 5.0]),
        ({"scale": 1.0}, ("cond",), [3.0, 5.0]),
        ({"scale": 0.5}, ("cond",), [3.0, 5.0]),
        ({"scale": 4.5}, ("uncond", "cond"), [10.0, 29.5]),
        ({"pag": 2.0}, ("cond", "perturbed"), [8.0, 7.0]),
        ({"scale": 4.5, "pag": 2.0}, ("uncond", "cond", "perturbed"), [15.0, 31.5]),
    ],
)
def test_only_needed_branches_are_asked_for(
    settings: dict[str, Any], branches: tuple[Branch, ...], expected: list[float]
) -> None:
    guidance = Guidance(**settings)
    assert guidance.branches(0.5) == branches
    result = guidance.combine({name: ANSWERS[name] for name in branches})
    torch.testing.assert_close(result, torch.tensor(expected))


def test_interval_limits_cfg_and_includes_its_ends() -> None:
    guidance = Guidance(scale=3.0, interval=(0.25, 0.75))
    sides = {sigma: "uncond" in guidance.branches(sigma) for sigma in (0.0, 0.2, 0.25, 0.5, 0.75, 0.76, 1.0)}
    assert sides == {0.0: False, 0.2: False, 0.25: True, 0.5: True, 0.75: True, 0.76: False, 1.0: False}
    whole = Guidance(scale=3.0)
    assert all("uncond" in whole.branches(sigma) for sigma in (0.0, 0.5, 1.0, 1.000004))


def test_a_trajectory_asks_for_both_branches_inside_the_interval_only() -> None:
    guidance, sigmas, asked = Guidance(scale=3.0, interval=(0.3, 0.9)), ShiftedTimes(3.0).sigmas(8), []

    def denoise(x: Tensor, sigma: float, step: int) -> Tensor:
        asked.append((sigma, guidance.branches(sigma)))
        return guidance.combine({name: ANSWERS[name] for name in guidance.branches(sigma)})

    sample(dpm(torch.zeros(2), sigmas), denoise)
    assert [sigma for sigma, _ in asked] == sigmas[:-1].tolist()
    for sigma, branches in asked:
        assert branches == (("uncond", "cond") if 0.3 <= sigma <= 0.9 else ("cond",))


def test_low_precision_answers_are_combined_in_float32() -> None:
    answers = {name: answer.bfloat16() for name, answer in ANSWERS.items()}
    result = Guidance(scale=4.3).combine({name: answers[name] for name in ("uncond", "cond")})
    assert result.dtype is torch.float32
    torch.testing.assert_close(result, cfg(ANSWERS["uncond"], ANSWERS["cond"], 4.3))


@pytest.mark.parametrize(
    "settings",
    [
        {"interval": (0.5, 0.4)},
        {"interval": (-0.1, 0.4)},
        {"interval": (0.0, 1.5)},
        {"scale": float("nan")},
        {"scale": -1.0},
        {"pag": float("inf")},
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        Guidance(**settings)
