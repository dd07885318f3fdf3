"""Inversion: Euler steps lead back to the source, other words move it as their flow does, what is kept stays."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from sanakit.base.errors import RequestError
from sanakit.flow import Solver, edit_by_inversion
from sanakit.flow.inversion import SourceQuery, invert
from tests.flow.toys import GaussianFlow, sample, seeded_noise

SHAPE = (2, 3, 4)
EVEN = [1 - i / 20 for i in range(21)]
FINE = [1 - i / 400 for i in range(401)]


def answered(
    solver: Solver, source: GaussianFlow, target: GaussianFlow
) -> tuple[Tensor, list[tuple[float, int]]]:
    """The sample, and level and step of the queries of the source's words."""
    asked: list[tuple[float, int]] = []
    query = next(solver)
    while True:
        inverts = isinstance(query, SourceQuery)
        if inverts:
            asked.append((query.sigma, query.step))
        try:
            query = solver.send((source if inverts else target).denoise(query.x, query.sigma, query.step))
        except StopIteration as end:
            return end.value, asked


def edited(sigmas: Sequence[float], iterations: int, before: GaussianFlow, after: GaussianFlow) -> Tensor:
    return answered(edit_by_inversion(seeded_noise([1], SHAPE), sigmas, iterations), before, after)[0]


def test_equal_words_give_the_source_the_better_the_more_iterations():
    source, flow = seeded_noise([1], SHAPE), GaussianFlow()
    off = [float((edited(EVEN, iterations, flow, flow) - source).abs().max()) for iterations in (1, 2, 4, 8)]
    assert off == sorted(off, reverse=True)
    assert off[0] > 1e-3 and off[-1] < 1e-5


def test_an_inverted_sample_is_what_the_flow_says():
    """With many levels the state at a level is the solution of the source's flow there."""
    source, flow = seeded_noise([2], SHAPE), GaussianFlow()
    found, _ = answered(invert(source, FINE[100:], 2), flow, flow)
    torch.testing.assert_close(found, flow.solve(source, 0.0, FINE[100]), atol=0.02, rtol=0)


def test_other_words_give_what_their_flow_draws_from_that_noise():
    source = seeded_noise([1], SHAPE)
    before, after = GaussianFlow(mean=0.2), GaussianFlow(mean=1.1)
    wanted = after.solve(before.solve(source, 0.0, 1.0), 1.0, 0.0)
    torch.testing.assert_close(edited(FINE, 2, before, after), wanted, atol=0.05, rtol=0)


def test_levels_are_climbed_with_the_steps_that_lead_down_again():
    solver = edit_by_inversion(seeded_noise([3], SHAPE), [0.6, 0.3, 0.0], 2)
    assert answered(solver, GaussianFlow(), GaussianFlow())[1] == [(0.3, 1), (0.3, 1), (0.6, 0), (0.6, 0)]


def test_what_is_kept_is_the_source_and_the_rest_moves():
    source, free = seeded_noise([4], SHAPE), torch.tensor([0.0, 0.0, 1.0, 1.0]).view(1, 1, 1, 4)
    before, after = GaussianFlow(mean=0.2), GaussianFlow(mean=1.1)
    found, _ = answered(edit_by_inversion(source, EVEN, 2, free), before, after)
    torch.testing.assert_close(found[..., :2], source[..., :2], atol=1e-5, rtol=0)
    assert (found - source)[..., 2:].abs().min() > 0.1


def test_levels_must_fall():
    with pytest.raises(RequestError, match="must fall"):
        sample(invert(seeded_noise([0], SHAPE), [0.1, 0.5]), GaussianFlow().denoise)
