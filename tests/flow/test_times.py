"""Times: the noise levels are diffusers' to the bit, and the training draws follow the density."""

from __future__ import annotations

import math

import pytest
import torch

from sanakit.base import ConfigError, RequestError
from sanakit.flow import ShiftedTimes
from sanakit.flow.times import SIGMA_MIN
from tests.flow.toys import GOLDEN, dpm_scheduler, euler_scheduler

SHIFTS = [1.0, 2.0, 3.0, 4.0, 6.0, 8.0]


@pytest.mark.parametrize("shift", SHIFTS)
def test_sigmas_and_timesteps_equal_diffusers_to_the_bit(shift: float) -> None:
    for steps in [*range(1, 52), 100, 143, 333, 501, 666, 999, 1000]:
        scheduler = dpm_scheduler(shift, steps)
        assert torch.equal(ShiftedTimes(shift).sigmas(steps), scheduler.sigmas), steps
        assert ShiftedTimes(shift).timesteps(steps) == scheduler.timesteps.tolist(), steps


@pytest.mark.parametrize("shift", SHIFTS)
def test_euler_sigmas_equal_diffusers_to_the_bit(shift: float) -> None:
    for steps in [*range(1, 52), 100, 1000]:
        scheduler = euler_scheduler(shift, steps)
        assert torch.equal(ShiftedTimes(shift).euler_sigmas(steps), scheduler.sigmas), steps


def test_sigmas_have_the_written_numbers() -> None:
    times = ShiftedTimes(3.0)
    torch.testing.assert_close(times.sigmas(20), torch.tensor(GOLDEN["grid_20_shift_3"]), rtol=0, atol=5e-9)
    assert times.timesteps(20) == GOLDEN["timesteps_20_shift_3"]
    torch.testing.assert_close(times.euler_sigmas(20)[-3:], torch.tensor([0.14978723, 0.00892857, 0.0]))


def test_sigmas_can_end_at_sigma_min() -> None:
    scheduler = dpm_scheduler(3.0, 20, final_sigmas_type="sigma_min")
    ours = ShiftedTimes(3.0).sigmas(20, final=SIGMA_MIN)
    assert torch.equal(ours, scheduler.sigmas)


@pytest.mark.parametrize("steps", [0, -3, 2.5, True, "20"])
@pytest.mark.parametrize("method", ["sigmas", "euler_sigmas", "timesteps"])
def test_steps_below_one_are_refused(method: str, steps: object) -> None:
    with pytest.raises(RequestError, match="steps must be a whole number of at least 1"):
        getattr(ShiftedTimes(3.0), method)(steps)


@pytest.mark.parametrize("shift", [0.0, -1.0, math.nan, math.inf])
def test_a_shift_must_be_positive(shift: float) -> None:
    with pytest.raises(ConfigError, match="shift"):
        ShiftedTimes(shift)


@pytest.mark.parametrize("shift, mean, std", [(1.0, 0.0, 1.0), (3.0, 0.0, 1.0), (6.0, -0.5, 1.4)])
def test_training_times_follow_the_shifted_logit_normal(shift: float, mean: float, std: float) -> None:
    n = 20_000
    t = ShiftedTimes(shift).sample(n, torch.Generator().manual_seed(1), mean, std).double().sort().values
    u = t / (shift - (shift - 1) * t)  # undo the shift by its own formula
    expected = torch.special.ndtr((torch.logit(u) - mean) / std)
    rank = torch.arange(n, dtype=torch.float64) / n
    distance = torch.maximum((expected - rank).abs(), (expected - rank - 1 / n).abs()).max()
    assert distance < 1.63 / math.sqrt(n)  # Kolmogorov-Smirnov, 1 %


def test_training_times_repeat_with_the_seed_and_keep_the_official_levels() -> None:
    times = ShiftedTimes(3.0)
    first, second = (times.sample(64, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, second)
    assert first.dtype is torch.float32
    assert ((first > 0) & (first < 1)).all()
    cut = times.sample(10_000, torch.Generator().manual_seed(5), levels=1000)
    u = cut / (3 - 2 * cut)
    torch.testing.assert_close(u * 1000, (u * 1000).round(), rtol=0, atol=2e-3)
    assert float(cut.max()) <= 3 * 0.999 / (1 + 2 * 0.999) + 1e-7
    assert ((first - cut[:64]) >= 0).all()
