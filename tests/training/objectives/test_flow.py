"""The flow's objective: chance per sample, weights per sample as diffusers has them, and the loss by time."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers.training_utils import compute_loss_weighting_for_sd3

from sanakit.base.errors import ConfigError
from sanakit.base.seeds import sample_seed
from sanakit.flow import ShiftedTimes, even_times
from sanakit.training.objectives import loss_by_time, sample_errors, time_weights, velocity
from sanakit.training.objectives.flow_matching import draw


def test_a_samples_chance_does_not_depend_on_its_neighbours() -> None:
    times = ShiftedTimes(3.0).sample
    seeds = [sample_seed(0, 7, row) for row in range(4)]
    t, noise = draw(seeds, (2, 3), times)
    alone_t, alone = draw(seeds[2:3], (2, 3), times)
    assert torch.equal(noise[2:3], alone) and torch.equal(t[2:3], alone_t)
    assert len({*seeds, sample_seed(0, 8, 0), sample_seed(1, 7, 0)}) == 6
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("name", ["none", "sigma_sqrt", "cosmap"])
def test_weights_are_those_of_diffusers(name: str) -> None:
    t = torch.rand(100) * 0.98 + 0.01
    torch.testing.assert_close(time_weights(name, t), compute_loss_weighting_for_sd3(name, t))  # type: ignore[arg-type]


def test_cosmap_is_a_density() -> None:
    assert time_weights("cosmap", even_times(1000)).mean().item() == pytest.approx(1.0, abs=1e-5)
    with pytest.raises(ConfigError, match="'snr' is unknown"):
        time_weights("snr", torch.ones(1))  # type: ignore[arg-type]


def test_weights_multiply_the_errors_of_their_samples() -> None:
    predicted, target = torch.randn(3, 2, 4, 5), torch.randn(3, 2, 4, 5)
    errors = sample_errors(predicted, target)
    torch.testing.assert_close(errors[1], (predicted[1] - target[1]).square().mean())
    plain = velocity(predicted, target)["loss"]
    torch.testing.assert_close(velocity(predicted, target, torch.ones(3))["loss"], plain)
    weighted = velocity(predicted, target, torch.tensor([0.0, 3.0, 0.0]))["loss"]
    torch.testing.assert_close(weighted, errors[1])
    assert velocity(predicted.bfloat16(), target.bfloat16())["loss"].dtype == torch.float32


def test_losses_fall_into_the_bucket_of_their_time() -> None:
    t = torch.tensor([0.0, 0.05, 0.1, 0.55, 0.99, 1.0])
    means = loss_by_time(t, torch.tensor([1.0, 3.0, 5.0, 7.0, 2.0, 4.0]))
    assert means.shape == (10,)
    assert [means[i].item() for i in (0, 1, 5, 9)] == [2.0, 5.0, 7.0, 3.0]
    assert all(math.isnan(means[i].item()) for i in (2, 3, 4, 6, 7, 8))
    assert loss_by_time(even_times(40), torch.ones(40), buckets=4).tolist() == [1.0] * 4
