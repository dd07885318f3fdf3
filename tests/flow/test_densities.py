"""Densities of training times: those of diffusers, shifted once."""

from __future__ import annotations

import pytest
import torch
from diffusers.training_utils import compute_density_for_timestep_sampling

from sanakit.base.errors import ConfigError
from sanakit.flow import ShiftedTimes, TimeDensity, draw_times, even_times


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(11)


@pytest.mark.parametrize(
    "density",
    [
        TimeDensity(mean=0.3, std=0.8),
        TimeDensity(name="uniform"),
        TimeDensity(name="mode"),
        TimeDensity(name="mode", scale=-0.5),
    ],
)
def test_times_are_those_of_diffusers(density: TimeDensity) -> None:
    theirs = compute_density_for_timestep_sampling(
        density.name, 500, density.mean, density.std, density.scale, generator=seeded()
    )
    ours = draw_times(500, seeded(), ShiftedTimes(1.0), density)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["logit_normal", "uniform", "mode"])
def test_times_are_shifted_and_cut(name: str) -> None:
    density = TimeDensity(name=name)  # type: ignore[arg-type]
    plain = draw_times(300, seeded(), ShiftedTimes(1.0), density).double()
    shifted = draw_times(300, seeded(), ShiftedTimes(3.0), density).double()
    torch.testing.assert_close(shifted, 3 * plain / (1 + 2 * plain), rtol=1e-5, atol=1e-6)
    cut = draw_times(300, seeded(), ShiftedTimes(3.0), density, levels=10)
    back = cut / (3 - 2 * cut) * 10
    torch.testing.assert_close(back, back.round(), rtol=1e-4, atol=1e-4)
    assert (cut <= shifted + 1e-6).all()
    assert len(cut.unique()) <= 10


def test_the_mode_lies_in_the_middle_for_positive_scales() -> None:
    drawn = draw_times(20_000, seeded(), ShiftedTimes(1.0), TimeDensity(name="mode", scale=1.29))
    counts = torch.histc(drawn, 5, 0, 1)
    assert counts[2] > 1.5 * counts[0]
    assert drawn.min() >= 0
    assert drawn.max() <= 1


def test_none_is_the_published_density() -> None:
    times = ShiftedTimes(3.0)
    assert torch.equal(draw_times(50, seeded(), times), times.sample(50, seeded()))


def test_even_times_are_the_middles() -> None:
    torch.testing.assert_close(even_times(4), torch.tensor([0.125, 0.375, 0.625, 0.875]))


@pytest.mark.parametrize("fields", [{"name": "beta"}, {"std": 0.0}, {"scale": 2.0}, {"scale": -1.5}])
def test_what_gives_no_times_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="times:"):
        TimeDensity(**fields)  # type: ignore[arg-type]
