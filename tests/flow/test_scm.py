"""The Sprint sampler: diffusers' trajectory, its noise levels, and noise only where it is used."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from diffusers import SCMScheduler
from torch import Tensor

from sanakit.base import RequestError
from sanakit.flow import SOLVERS, drive
from sanakit.flow.path import TrigPath, angle_from_time, linear_scale, time_from_angle, trig_from_velocity
from sanakit.flow.scm import scm, scm_angles, scm_sigmas
from tests.flow.toys import sample
from tests.oracles.bounds import within

BOUND = 1e-6
"""Reached: 2.9e-7 over all cases."""


def network(x: Tensor, s: float, step: int) -> Tensor:
    return torch.sin(2 * x) + s


def trig_network(x: Tensor, angle: float) -> Tensor:
    """The network above as one of the trig path, as the Sprint pipeline uses it."""
    s = time_from_angle(angle)
    linear = x * linear_scale(s)
    return trig_from_velocity(linear, network(linear, s, 0), s)


def draws(seed: int, count: int, shape: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for _ in range(count)]


PUBLISHED = {3: [1.57080, 1.3, 0.8, 0.0], 4: [1.57080, 1.3, 1.1, 0.6, 0.0]}
"""Angles that diffusers has to be given; it has those of 1 and 2 steps, and even ones from 5 on, by itself."""


def schedule(steps: int, angles: list[float] | None = None) -> SCMScheduler:
    scheduler = SCMScheduler()
    if angles is None:
        scheduler.set_timesteps(steps, intermediate_timesteps=1.3 if steps == 2 else None)
    else:
        scheduler.set_timesteps(steps, timesteps=angles, max_timesteps=None, intermediate_timesteps=None)
    return scheduler


def levels(steps: int) -> list[float]:
    return scm_sigmas(scm_angles(steps))


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 8, 20])
def test_trajectory_equals_diffusers(steps: int) -> None:
    shape, scheduler = (2, 4, 3, 3), schedule(steps, PUBLISHED.get(steps))
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    generator, latents, theirs = torch.Generator().manual_seed(7), x * 0.5, []
    for t in scheduler.timesteps[:-1]:
        output = trig_network(latents / 0.5, float(t)) * 0.5
        latents, denoised = scheduler.step(output, t, latents, generator=generator, return_dict=False)
        theirs.append((latents / 0.5, denoised / 0.5))

    sigmas, fresh = levels(steps), draws(7, steps, shape)
    ours = list(drive(scm(x, sigmas, fresh.__getitem__), network))
    for state, sigma, (expected, clean) in zip(ours, sigmas[1:], theirs, strict=True):
        within("SCM, every state", state.x, expected * linear_scale(sigma), BOUND)
        within("SCM, every state", state.x0, clean, BOUND)


@pytest.mark.parametrize("steps", [*range(1, 41), 200, 1000])
def test_the_angles_behind_the_noise_levels_are_those_of_diffusers_to_the_bit(steps: int) -> None:
    angles = torch.tensor([angle_from_time(sigma) for sigma in levels(steps)])
    assert torch.equal(angles, schedule(steps, PUBLISHED.get(steps)).timesteps)


def test_even_angles_of_four_steps_are_those_that_diffusers_has_by_itself() -> None:
    even = torch.linspace(1.57080, 0, 5)
    assert torch.equal(even, schedule(4).timesteps)
    given = SOLVERS["scm"].from_angles
    assert given is not None
    assert torch.equal(torch.tensor([angle_from_time(level) for level in given(even[:-1].tolist())]), even)


def test_noise_is_drawn_for_every_step_but_the_last() -> None:
    asked: list[int] = []

    def noise(step: int) -> Tensor:
        asked.append(step)
        return torch.zeros(1, 2)

    sample(scm(torch.ones(1, 2), levels(4), noise), network)
    assert asked == [0, 1, 2]
    asked.clear()
    sample(scm(torch.ones(1, 2), levels(1), noise), network)
    assert asked == []


def test_two_steps_pass_through_the_published_middle_angle() -> None:
    assert levels(1) == pytest.approx([1.0000037, 0.0], rel=1e-7)
    assert [angle_from_time(sigma) for sigma in levels(2)] == pytest.approx([1.57080, 1.3, 0.0])


def test_a_perfect_network_gives_the_data_in_any_number_of_steps() -> None:
    x0 = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))

    def perfect(x: Tensor, sigma: float, step: int) -> Tensor:
        return ((x.double() - x0.double()) / sigma).float()

    lists = [levels(1), levels(2), levels(4), [0.99, 0.8, 0.6, 0.4, 0.0], [0.5, 0.0]]
    for sigmas in lists:
        fresh = draws(3, len(sigmas), (3, 4))
        x = TrigPath().point(x0, noise, angle_from_time(sigmas[0]))
        result = sample(scm(x, sigmas, fresh.__getitem__), perfect)
        torch.testing.assert_close(result, x0, rtol=1e-5, atol=1e-5)


def test_one_step_needs_no_noise_and_more_do() -> None:
    assert sample(scm(torch.ones(1, 2), levels(1)), network).shape == (1, 2)
    with pytest.raises(RequestError, match="give it a noise function"):
        next(scm(torch.ones(1, 2), levels(2)))


@pytest.mark.parametrize(
    "sigmas", [[1.0], [0.8, 0.9, 0.0], [1.0, 0.2], [1.1, 0.0], [0.5, 0.5, 0.0], [math.nan, 0.0], []]
)
def test_bad_noise_levels_are_refused(sigmas: list[float]) -> None:
    with pytest.raises(RequestError, match="noise level"):
        next(scm(torch.ones(1, 2), sigmas, lambda step: torch.ones(1, 2)))


@pytest.mark.parametrize("steps", [0, -1, 1.5])
def test_steps_below_one_are_refused(steps: Any) -> None:
    with pytest.raises(RequestError, match="at least 1"):
        levels(steps)


def test_a_sample_does_not_depend_on_its_batch() -> None:
    x, fresh = torch.randn(2, 5, 3, 3, generator=torch.Generator().manual_seed(0))
    together = sample(scm(x, levels(2), lambda step: fresh), network)
    for k in range(5):
        row = slice(k, k + 1)
        alone = sample(scm(x[row], levels(2), lambda step: fresh[row]), network)  # noqa: B023
        assert torch.equal(together[row], alone)
