"""Times: the grids are diffusers' to the bit, and the training draws follow the density."""

from __future__ import annotations

import math

import pytest
import torch

from sanakit.base import ConfigError, RequestError
from sanakit.flow import SIGMA_MIN, ShiftedTimes
from tests.flow.toys import GOLDEN, dpm_scheduler, euler_scheduler

SHIFTS = [1.0, 2.0, 3.0, 4.0, 6.0, 8.0]


@pytest.mark.parametrize("shift", SHIFTS)
def test_grid_and_timesteps_equal_diffusers_to_the_bit(shift: float) -> None:
    for steps in [*range(1, 52), 100, 143, 333, 501, 666, 999, 1000]:
        scheduler = dpm_scheduler(shift, steps)
        assert torch.equal(ShiftedTimes(shift).grid(steps), scheduler.sigmas), steps
        assert ShiftedTimes(shift).timesteps(steps) == scheduler.timesteps.tolist(), steps


@pytest.mark.parametrize("shift", SHIFTS)
def test_euler_grid_equals_diffusers_to_the_bit(shift: float) -> None:
    for steps in [*range(1, 52), 100, 1000]:
        scheduler = euler_scheduler(shift, steps)
        assert torch.equal(ShiftedTimes(shift).euler_grid(steps), scheduler.sigmas), steps


def test_grid_has_the_written_numbers() -> None:
    times = ShiftedTimes(3.0)
    torch.testing.assert_close(times.grid(20), torch.tensor(GOLDEN["grid_20_shift_3"]), rtol=0, atol=5e-9)
    assert times.timesteps(20) == GOLDEN["timesteps_20_shift_3"]
    torch.testing.assert_close(times.euler_grid(20)[-3:], torch.tensor([0.14978723, 0.00892857, 0.0]))


def test_grid_can_end_at_sigma_min() -> None:
    scheduler = dpm_scheduler(3.0, 20, final_sigmas_type="sigma_min")
    ours = ShiftedTimes(3.0).grid(20, final=SIGMA_MIN)
    assert torch.equal(ours, scheduler.sigmas)


@pytest.mark.parametrize("steps", [1, 2, 20, 1000])
def test_official_grid_agrees_up_to_rounding(steps: int) -> None:
    times = ShiftedTimes(3.0)
    torch.testing.assert_close(times.official_grid(steps), times.grid(steps), rtol=3e-7, atol=0)
    assert times.official_grid(steps)[0] == pytest.approx(3 * 0.999 / (1 + 2 * 0.999))


@pytest.mark.parametrize("steps", [0, -3, 2.5, True, "20"])
@pytest.mark.parametrize("grid", ["grid", "official_grid", "euler_grid", "timesteps"])
def test_steps_below_one_are_refused(grid: str, steps: object) -> None:
    with pytest.raises(RequestError, match="steps must be a whole number of at least 1"):
        getattr(ShiftedTimes(3.0), grid)(steps)


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


@pytest.mark.parametrize("shift, mean, std", [(1.0, 0.0, 1.0), (3.0, 0.0, 1.0), (6.0, -0.5, 1.4)])
def test_density_is_that_of_the_draws(shift: float, mean: float, std: float) -> None:
    times, t = ShiftedTimes(shift), torch.linspace(0, 1, 200_001, dtype=torch.float64)[1:-1]
    cumulative = torch.cumsum(times.density(t, mean, std), 0) * (t[1] - t[0])
    assert cumulative[-1] == pytest.approx(1.0, abs=1e-3)
    drawn = times.sample(100_000, torch.Generator().manual_seed(2), mean, std).double()
    for cut in (0.3, 0.6, 0.9):
        below = float(cumulative[int(cut * 200_000) - 1])
        assert float((drawn < cut).double().mean()) == pytest.approx(below, abs=6e-3)


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
