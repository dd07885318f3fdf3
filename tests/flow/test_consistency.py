"""The Sprint sampler: diffusers' trajectory, its angles, and noise only where it is used."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import SCMScheduler
from torch import Tensor

from sanakit.base import RequestError
from sanakit.flow import TrigPath, angles, iterate_scm, scm, trigflow
from tests.oracles.bounds import within

BOUND = 1e-6
"""Reached: 1.9e-7 over all cases."""


def network(x: Tensor, s: float, index: int) -> Tensor:
    return torch.sin(2 * x) + s


def draws(seed: int, count: int, shape: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for _ in range(count)]


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 8, 20])
def test_trajectory_equals_diffusers(steps: int) -> None:
    shape = (2, 4, 3, 3)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    scheduler = SCMScheduler()
    scheduler.set_timesteps(steps, intermediate_timesteps=1.3 if steps == 2 else None)
    generator, latents, theirs = torch.Generator().manual_seed(7), x * 0.5, []
    for index, t in enumerate(scheduler.timesteps[:-1]):
        output = trigflow(network)(latents / 0.5, float(t), index) * 0.5
        latents, denoised = scheduler.step(output, t, latents, generator=generator, return_dict=False)
        theirs.append((latents / 0.5, denoised / 0.5))

    assert torch.equal(angles(steps), scheduler.timesteps)
    fresh = draws(7, steps, shape)
    ours = list(iterate_scm(trigflow(network), x, angles(steps), lambda step: fresh[step]))
    for state, (expected, clean) in zip(ours, theirs, strict=True):
        within("SCM, every state", state.x, expected, BOUND)
        within("SCM, every state", state.x0, clean, BOUND)
    assert torch.equal(ours[-1].x, ours[-1].x0)
    assert ours[-1].sigma == 0


def test_noise_is_drawn_for_every_step_but_the_last() -> None:
    asked: list[int] = []

    def noise(step: int) -> Tensor:
        asked.append(step)
        return torch.zeros(1, 2)

    scm(trigflow(network), torch.ones(1, 2), angles(4), noise)
    assert asked == [0, 1, 2]
    asked.clear()
    scm(trigflow(network), torch.ones(1, 2), angles(1), noise)
    assert asked == []


def test_angles_of_one_two_and_more_steps() -> None:
    torch.testing.assert_close(angles(1), torch.tensor([1.57080, 0.0]))
    torch.testing.assert_close(angles(2), torch.tensor([1.57080, 1.3, 0.0]))
    torch.testing.assert_close(angles(2, middle=1.0), torch.tensor([1.57080, 1.0, 0.0]))
    torch.testing.assert_close(angles(2, middle=None), torch.tensor([1.57080, 0.7854, 0.0]))
    torch.testing.assert_close(angles(3), torch.linspace(1.57080, 0, 4))


def test_a_perfect_network_gives_the_data_in_any_number_of_steps() -> None:
    x0, noise = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))

    def perfect(x: Tensor, angle: float, index: int) -> Tensor:
        tangent = torch.tensor(angle, dtype=torch.float64)
        return ((torch.cos(tangent) * x.double() - x0.double()) / torch.sin(tangent)).float()

    for nodes in (angles(1), angles(2), angles(4), [1.57, 1.3, 1.1, 0.6, 0.0], [0.8, 0.0]):
        fresh = draws(3, len(nodes), (3, 4))
        x = TrigPath().point(x0, noise, float(nodes[0]))
        result = scm(perfect, x, nodes, fresh.__getitem__)
        torch.testing.assert_close(result, x0, rtol=1e-5, atol=1e-5)


def test_one_step_needs_no_noise_and_more_do() -> None:
    assert scm(trigflow(network), torch.ones(1, 2), angles(1)).shape == (1, 2)
    with pytest.raises(RequestError, match="give it a noise function"):
        scm(trigflow(network), torch.ones(1, 2), angles(2))


@pytest.mark.parametrize(
    "nodes", [[1.57], [1.3, 1.4, 0.0], [1.57, 0.2], [1.6, 0.0], [1.0, 1.0, 0.0], [float("nan"), 0.0], []]
)
def test_bad_angles_are_refused(nodes: list[float]) -> None:
    with pytest.raises(RequestError, match="angles"):
        iterate_scm(trigflow(network), torch.ones(1, 2), nodes, lambda step: torch.ones(1, 2))


@pytest.mark.parametrize("steps", [0, -1, 1.5])
def test_steps_below_one_are_refused(steps: Any) -> None:
    with pytest.raises(RequestError, match="at least 1"):
        angles(steps)


def test_a_sample_does_not_depend_on_its_batch() -> None:
    x, fresh = torch.randn(2, 5, 3, 3, generator=torch.Generator().manual_seed(0))
    together = scm(trigflow(network), x, angles(2), lambda step: fresh)
    for k in range(5):
        row = slice(k, k + 1)
        assert torch.equal(together[row], scm(trigflow(network), x[row], angles(2), lambda step: fresh[row]))  # noqa: B023
