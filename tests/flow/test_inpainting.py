"""What is kept is the source, noised to each level on the way; what is free is as without it; grey is in between."""

from __future__ import annotations

import pytest
import torch

from sanakit.flow import SOLVERS, LinearPath, Schedule, drive, keep_source, last_levels
from sanakit.flow.path import linear_scale
from tests.flow.toys import GaussianFlow, seeded_noise

SHAPE = (2, 3, 4)
SCHEDULE = Schedule()
FLOW = GaussianFlow()


def walk(name: str, free: torch.Tensor, strength: float = 1.0):
    """The queries of a run of 8 steps, its result, the source and the noise that it began with."""
    row = SOLVERS[name]
    sigmas = last_levels(row.sigmas(SCHEDULE, 8), strength)
    source, noise = seeded_noise([7], SHAPE), seeded_noise([8], SHAPE)
    solver = row.run(row.start(source, noise, sigmas[0]), list(sigmas), SCHEDULE, lambda step: noise)
    seen: list[tuple[torch.Tensor, float]] = []

    def answer(x: torch.Tensor, sigma: float, step: int) -> torch.Tensor:
        seen.append((x, sigma))
        return FLOW.denoise(x, sigma, step)

    result = list(drive(keep_source(solver, source, free), answer))[-1].x
    return seen, result, source, noise


@pytest.mark.parametrize("name", SOLVERS)
def test_what_is_kept_walks_on_the_path_of_the_source(name: str):
    seen, result, source, noise = walk(name, torch.zeros(1, 1, 1, 1))
    assert len(seen) == 8
    for x, sigma in seen:
        torch.testing.assert_close(x, LinearPath().point(source, noise, sigma), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(result, source, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", SOLVERS)
def test_what_is_free_is_as_without_a_source(name: str):
    _, result, source, noise = walk(name, torch.ones(1, 1, 1, 1), strength=0.5)
    row = SOLVERS[name]
    sigmas = last_levels(row.sigmas(SCHEDULE, 8), 0.5)
    plain = row.run(row.start(source, noise, sigmas[0]), list(sigmas), SCHEDULE, lambda step: noise)
    assert torch.equal(result, list(drive(plain, FLOW.denoise))[-1].x)


@pytest.mark.parametrize("name", ["dpm2", "euler"])
def test_grey_begins_late_and_changes_less(name: str):
    grey = torch.tensor([0.0, 0.3, 0.8, 1.0]).view(1, 1, 1, 4)
    seen, _, source, noise = walk(name, grey)
    for x, sigma in seen:
        kept = grey.flatten() <= sigma
        kept[3] = False
        wanted = LinearPath().point(source, noise, sigma)
        torch.testing.assert_close(x[..., kept], wanted[..., kept], atol=1e-5, rtol=1e-5)
    changes = []
    for level in (0.0, 0.3, 0.8, 1.0):
        _, result, source, _ = walk(name, torch.full((1, 1, 1, 1), level))
        changes.append(float((result - source).abs().mean()))
    assert changes[0] < 1e-5 < changes[1] < changes[2] < changes[3]


@pytest.mark.parametrize("name", SOLVERS)
def test_a_start_is_the_point_of_the_linear_path_that_the_network_is_asked_at(name: str):
    source, noise = seeded_noise([1], SHAPE), seeded_noise([2], SHAPE)
    sigma = SOLVERS[name].sigmas(SCHEDULE, 4)[2]
    scale = linear_scale(sigma) if SOLVERS[name].consistency else 1.0
    found = SOLVERS[name].start(source, noise, sigma) * scale
    torch.testing.assert_close(found, LinearPath().point(source, noise, sigma))


@pytest.mark.parametrize(
    ("steps", "strength", "made"),
    [
        (20, 0.5, 10),
        (20, 1.0, 20),
        (20, 0.01, 1),
        (2, 0.6, 2),
        (2, 0.5, 1),
        (25, 0.28, 7),
        (50, 0.58, 29),
        (4, 0, 0),
    ],
)
def test_strength_is_the_part_of_the_steps_that_is_made(steps: int, strength: float, made: int):
    sigmas = [1 - i / steps for i in range(steps + 1)]
    assert last_levels(sigmas, strength) == tuple(sigmas[steps - made :])


def test_img2img_with_the_exact_velocity_keeps_the_quantile_of_a_gaussian():
    """The flow of a Gaussian is known: from the noised source it leads to the point of equal quantile."""
    row = SOLVERS["euler"]
    sigmas = last_levels(row.sigmas(Schedule(shift=1.0), 2000), 0.5)
    source, noise = seeded_noise([3], SHAPE), seeded_noise([4], SHAPE)
    start = row.start(source, noise, sigmas[0])
    result = list(drive(row.run(start, list(sigmas), SCHEDULE, None), FLOW.denoise))[-1].x
    torch.testing.assert_close(result, FLOW.solve(start, sigmas[0], 0.0), atol=2e-3, rtol=0)
