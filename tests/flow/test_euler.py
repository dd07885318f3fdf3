"""Euler: diffusers' trajectory, the written numbers, first order."""

from __future__ import annotations

import pytest
import torch

from sanakit.flow import ShiftedTimes, drive
from sanakit.flow.euler import euler
from tests.flow.toys import GOLDEN, GaussianFlow, diffusers_loop, euler_scheduler, sample, start, velocity
from tests.oracles.bounds import within

BOUND = 1e-6
"""Reached: 2.2e-7 over all cases."""


@pytest.mark.parametrize("shift", [1.0, 3.0, 6.0, 7.0])
def test_trajectory_equals_diffusers(shift: float) -> None:
    for steps in (1, 2, 3, 5, 10, 20, 28, 50):
        theirs = diffusers_loop(euler_scheduler(shift, steps))
        sigmas = ShiftedTimes(shift).euler_sigmas(steps)
        ours = drive(euler(start(), sigmas), lambda x, s, i: velocity(x, 1000 * s))
        for state, expected in zip(ours, theirs, strict=True):
            within("Euler, every state", state.x, expected, BOUND)


def test_written_numbers() -> None:
    x = sample(euler(start(), ShiftedTimes(3.0).euler_sigmas(5)), lambda x, s, i: velocity(x, 1000 * s))
    torch.testing.assert_close(x.flatten()[:4], torch.tensor(GOLDEN["euler_5"]), rtol=0, atol=2e-6)


def test_halving_the_step_halves_the_error() -> None:
    flow, x = GaussianFlow(), torch.linspace(-2, 2, 9)
    errors = [
        (sample(euler(x, torch.linspace(0.9, 0.1, steps + 1)), flow.denoise) - flow.solve(x, 0.9, 0.1))
        .abs()
        .max()
        for steps in (64, 128)
    ]
    assert float(errors[0] / errors[1]) == pytest.approx(2, rel=0.05)


def test_a_sample_does_not_depend_on_its_batch() -> None:
    x = torch.randn(3, 2, 5, 3, generator=torch.Generator().manual_seed(0))
    sigmas = ShiftedTimes(3.0).euler_sigmas(9)
    together = sample(euler(x, sigmas), GaussianFlow().denoise)
    assert torch.equal(together[1:2], sample(euler(x[1:2], sigmas), GaussianFlow().denoise))


def test_states_carry_the_clean_sample() -> None:
    flow = GaussianFlow()
    states = list(drive(euler(start(), [0.8, 0.4, 0.0]), flow.denoise))
    torch.testing.assert_close(states[0].x0, start() - 0.8 * flow.denoise(start(), 0.8, 0))
    torch.testing.assert_close(states[1].x, states[1].x0)
    assert [state.step for state in states] == [0, 1]
