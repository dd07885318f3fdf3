"""Trajectories: they end where the sampler ends, their points lead there, and a step draws its own levels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sanakit.base import ConfigError
from sanakit.base.text_states import TextStates
from sanakit.flow import Schedule
from sanakit.flow.path import x0_from_trig
from sanakit.flow.sampling import drive
from sanakit.flow.solvers import SOLVERS
from sanakit.training.objectives.sprint_settings import SprintConfig, TrajectoryConfig
from sanakit.training.objectives.trajectory import Levels, end_distance, follow
from tests.oracles.bounds import within

TEXT = TextStates(torch.zeros(3, 1, 2), torch.ones(3, 1, dtype=torch.bool))
SCALES = torch.ones(3)


def bent(x: Tensor, s: Tensor, text: TextStates, guidance: Tensor) -> Tensor:
    """A velocity that bends trajectories."""
    return torch.tanh(x) + s[:, None, None, None] * x.roll(1, 1)


def test_trajectories_from_noise_end_where_the_sampler_does() -> None:
    settings = TrajectoryConfig(weight=1.0, steps=7, noise=1.0)
    levels = Levels.draw(3, settings, shift=3.0)
    noise = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(0))
    found = follow(levels.start(torch.full_like(noise, torch.nan), noise), levels, bent, TEXT, SCALES)
    solver, schedule = SOLVERS["dpm2"], Schedule(shift=3.0)
    sampled = solver.run(noise, solver.sigmas(schedule, 7), schedule, None)
    *_, last = drive(sampled, lambda x, level, step: bent(x, torch.full((2,), level), TEXT, SCALES))
    within("trajectory, end", found.end, last.x, 1e-5)


def test_points_lie_on_the_trajectory_that_is_followed_from_them() -> None:
    """Of a flow with one picture any step is exact: each point's velocity leads to the end."""
    generator = torch.Generator().manual_seed(1)
    x0, noise = (torch.randn(3, 4, 2, 3, generator=generator) for _ in range(2))

    def velocity(x: Tensor, s: Tensor, text: TextStates, guidance: Tensor) -> Tensor:
        return (x - x0) / s[:, None, None, None]

    for step in range(6):
        levels = Levels.draw(step, TrajectoryConfig(weight=1.0, steps=5, points=4), shift=2.0)
        found = follow(levels.start(x0, noise), levels, velocity, TEXT, SCALES)
        within("trajectory, one picture", found.end, x0, 1e-4)
        assert len(found.points) == len(found.angles) == min(4, len(levels.levels) - 1)
        for x, angle in zip(found.points, found.angles, strict=True):
            trig = (angle.cos()[:, None, None, None] * x - x0) / angle.sin()[:, None, None, None]
            within("trajectory, jump", x0_from_trig(x, trig, angle), x0, 1e-5)
            direct = (x - angle.cos()[:, None, None, None] * x0) / angle.sin()[:, None, None, None]
            if not levels.pure:  # there the point of the first level is noise alone
                within("trajectory, point", direct, noise, 1e-3)


def test_levels_are_the_step_s_own_and_begin_at_noise_as_often_as_asked() -> None:
    settings = TrajectoryConfig(weight=1.0, noise=0.5)
    drawn = [Levels.draw(step, settings, 2.0) for step in range(400)]
    assert drawn == [Levels.draw(step, settings, 2.0) for step in range(400)]
    assert 0.4 < sum(each.pure for each in drawn) / 400 < 0.6
    assert all(
        each.learnt[0] == 0 and len(set(each.learnt)) == min(3, len(each.levels) - 1) for each in drawn
    )
    assert {number for each in drawn for number in each.learnt} == set(range(10))
    assert all(list(each.levels) == sorted(each.levels, reverse=True) for each in drawn)
    counts = [len(each.levels) - 1 for each in drawn]
    assert all(count == 10 for count, each in zip(counts, drawn, strict=True) if each.pure)
    assert set(counts) == set(range(1, 11))
    assert sum(counts) / 400 == pytest.approx(settings.mean_steps, rel=0.1)
    firsts = [each.levels[0] for each in drawn if not each.pure]
    assert min(firsts) < 0.1 and max(firsts) > 0.95


def test_the_distance_is_square_near_the_end_and_even_far_from_it() -> None:
    end = torch.zeros(2, 4, 2, 2)
    near, nearer = (float(end_distance(end + d, end)) for d in (2e-3, 1e-3))
    far, farther = (float(end_distance(end + d, end)) for d in (10.0, 20.0))
    assert near / nearer == pytest.approx(4, rel=1e-2) and farther / far == pytest.approx(2, rel=1e-2)
    assert float(end_distance(end, end)) == 0


def test_more_points_than_steps_and_no_loss_at_all_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"trajectory\.points is 4.*of 3 steps"):
        TrajectoryConfig(steps=3, points=4)
    with pytest.raises(ConfigError, match="all 0: nothing is learnt"):
        SprintConfig(consistency=0.0, adversarial=0.0)
    SprintConfig(consistency=0.0, adversarial=0.0, trajectory=TrajectoryConfig(weight=1.0))
