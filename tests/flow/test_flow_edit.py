"""FlowEdit: equal words move nothing, two Gaussians move the source by the difference of their means, exactly."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sanakit.base.errors import RequestError
from sanakit.flow import SOLVERS, PairQuery, Schedule, drive_pairs, flow_edit
from tests.flow.toys import GaussianFlow, seeded_noise

SHAPE = (2, 3, 4)
EVEN = [1 - i / 400 for i in range(401)]


def noises(seed: int = 5) -> Callable[[int], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda step: torch.randn((1, *SHAPE), generator=generator)


def pair(source: GaussianFlow, target: GaussianFlow) -> Callable[[PairQuery], tuple[Tensor, Tensor]]:
    return lambda query: (
        source.denoise(query.source, query.sigma, query.step),
        target.denoise(query.target, query.sigma, query.step),
    )


@pytest.mark.parametrize("averages", [1, 3])
def test_equal_words_give_the_source(averages: int):
    source, flow = seeded_noise([1], SHAPE), GaussianFlow()
    states = list(drive_pairs(flow_edit(source, EVEN[::40], noises(), averages), pair(flow, flow)))
    assert [state.step for state in states] == list(range(10))
    torch.testing.assert_close(states[-1].x, source, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("begin", "averages"), [(0, 1), (0, 2), (200, 1)])
def test_gaussians_of_one_width_are_moved_by_the_difference_of_their_means(begin: int, averages: int):
    """d' = slope(s) d - (a + slope(s) (1-s)) (m1 - m0), whose solution from d = 0 is known: see below."""
    source = seeded_noise([2], SHAPE)
    before, after = GaussianFlow(mean=0.2), GaussianFlow(mean=1.1)
    sigmas = EVEN[begin:]
    found = list(drive_pairs(flow_edit(source, sigmas, noises(), averages), pair(before, after)))[-1].x
    # The flow of the difference is that of a Gaussian of mean m1 - m0: from 0 at the first level to level 0.
    zero = torch.zeros(1)
    wanted = GaussianFlow(mean=0.9).solve(zero, sigmas[0], 0.0)
    torch.testing.assert_close(found - source, wanted.expand_as(source), atol=0.01, rtol=0)


def test_one_step_of_a_consistency_model_adds_the_difference_of_its_clean_samples():
    source = seeded_noise([3], SHAPE)
    sigmas = SOLVERS["scm"].sigmas(Schedule(kind="scm"), 1)

    def answer(query: PairQuery) -> tuple[Tensor, Tensor]:
        return (query.source - 2.0) / query.sigma, (query.target - 5.0) / query.sigma  # x0 of 2 and of 5

    found = list(drive_pairs(flow_edit(source, sigmas, noises()), answer))[-1].x
    torch.testing.assert_close(found, source + 3.0, atol=1e-5, rtol=1e-5)


def test_only_what_is_free_moves():
    source, free = seeded_noise([4], SHAPE), torch.tensor([0.0, 0.3, 0.8, 1.0]).view(1, 1, 1, 4)
    before, after = GaussianFlow(mean=0.2), GaussianFlow(mean=1.1)
    found = list(drive_pairs(flow_edit(source, EVEN, noises(), 1, free), pair(before, after)))[-1].x
    moved = (found - source).abs().mean(dim=(0, 1, 2))
    assert moved[0] == 0 < moved[1] < moved[2] < moved[3]


def test_no_average_is_refused():
    with pytest.raises(RequestError, match="at least one noise"):
        next(flow_edit(seeded_noise([0], SHAPE), EVEN, noises(), 0))
