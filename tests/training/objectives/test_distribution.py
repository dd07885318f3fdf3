"""Distribution matching: its gradient is the direction, and it chooses one of two pictures where regression blends."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sanakit.training.objectives.distribution import matching_direction, matching_loss
from tests.oracles.bounds import within


def test_the_gradient_is_the_direction_over_the_elements() -> None:
    generator = torch.Generator().manual_seed(0)
    x0, real, fake = (torch.randn(3, 4, 2, 5, generator=generator) for _ in range(3))
    x0.requires_grad_()
    matching_loss(x0, real, fake).backward()
    assert x0.grad is not None
    distance = torch.stack([(a - b).abs().mean() for a, b in zip(x0.detach(), real, strict=True)])
    wanted = (fake - real) / distance[:, None, None, None]
    within("distribution, direction", matching_direction(x0.detach(), real, fake), wanted, 1e-6)
    within("distribution, gradient", x0.grad * x0.numel(), wanted, 1e-5)


def test_where_both_expect_the_same_nothing_moves_and_near_it_nothing_explodes() -> None:
    x0 = torch.randn(2, 4, 2, 2, generator=torch.Generator().manual_seed(1))
    assert not matching_direction(x0, x0 + 1, x0 + 1).any()
    found = matching_direction(x0, x0, x0 + 1e-4)  # the teacher expects the very picture
    assert float(found.abs().max()) == pytest.approx(1e-4 / 0.02, rel=1e-2)


class Small(nn.Sequential):
    """A number, and a time beside it -> a number."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(2, 32), nn.SiLU(), nn.Linear(32, 32), nn.SiLU(), nn.Linear(32, 1))

    def at(self, x: Tensor, s: Tensor) -> Tensor:
        found: Tensor = self(torch.cat([x, s], dim=1))
        return found


def test_a_student_draws_one_of_two_pictures_and_not_their_mean() -> None:
    """Pictures are -1 and 1, evenly; a student that begins at their mean ends near either, for half of the noise."""
    torch.manual_seed(0)
    student, score = Small(), Small()
    movers = [torch.optim.Adam(each.parameters(), lr=2e-3) for each in (student, score)]

    def noisy(x0: Tensor) -> tuple[Tensor, Tensor]:
        s = 0.05 + 0.9 * torch.rand(len(x0), 1)
        return (1 - s) * x0 + s * torch.randn_like(x0), s

    def step(mover: torch.optim.Optimizer, loss: Tensor) -> None:
        mover.zero_grad()
        loss.backward()
        mover.step()

    none = torch.zeros(256, 1)
    for number in range(700):
        x0 = student.at(torch.randn(256, 1), none)
        x, s = noisy(x0.detach())
        step(movers[1], (score.at(x, s) - x0.detach()).square().mean())
        if number >= 100:
            x, s = noisy(x0.detach())
            with torch.no_grad():
                real, fake = torch.tanh((1 - s) * x / s**2), score.at(x, s)
            step(movers[0], matching_loss(x0, real, fake))
    with torch.no_grad():
        drawn = student.at(torch.randn(2000, 1), torch.zeros(2000, 1))
    assert float(drawn.abs().median()) > 0.8
    assert 0.3 < float((drawn > 0).float().mean()) < 0.7
