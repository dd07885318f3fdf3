"""The consistency loss: the published formulas, two derivatives that agree, and a flow whose answer is known."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sanakit.flow.path import TrigPath, x0_from_trig
from sanakit.training.objectives.consistency import (
    angles,
    consistency_loss,
    difference_tangent,
    direction,
    exact_tangent,
    linear_point,
    normalised,
    weights,
)
from tests.oracles.bounds import within

# torch itself scripts its rules for tangents when they are first used.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated:DeprecationWarning")

SIGMA = 0.5  # sigma_data of the published code
MEAN, STD = torch.tensor([1.5, -0.5]), torch.tensor([0.3, 0.8])  # of the Gaussian data


def published(
    network: Callable[[Tensor, Tensor], Tensor], teacher: Callable[[Tensor, Tensor], Tensor],
    x0: Tensor, noise: Tensor, t: Tensor, step: int, warmup: int, logvar: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """g and the loss as the published code writes them: data of deviation 0.5, networks read x / 0.5."""
    t = t.view(-1, 1, 1, 1)
    x0, z = x0 * SIGMA, noise * SIGMA
    x_t = torch.cos(t) * x0 + torch.sin(t) * z
    dxt_dt = SIGMA * teacher(x_t / SIGMA, t.flatten())
    tangents = (torch.cos(t) * torch.sin(t) * dxt_dt / SIGMA, (torch.cos(t) * torch.sin(t)).flatten())
    f_minus, f_grad = torch.func.jvp(network, (x_t / SIGMA, t.flatten()), tangents)
    r = min(1, step / warmup)
    g = -torch.cos(t) * torch.cos(t) * (SIGMA * f_minus.detach() - dxt_dt)
    g = g - r * (torch.cos(t) * torch.sin(t) * x_t + SIGMA * f_grad.detach())
    raw = g
    g = g / (torch.linalg.vector_norm(g, dim=(1, 2, 3), keepdim=True) + 0.1)
    weight = 1 / (torch.tan(t) * SIGMA)
    f = network(x_t / SIGMA, t.flatten())
    logvar = logvar.view(-1, 1, 1, 1)
    loss = (weight / torch.exp(logvar)) * torch.square(f - f.detach() - g) + logvar
    return raw.detach(), loss.mean()


class Small(nn.Module):
    """[B, C, h, w] and angles [B] -> [B, C, h, w]."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.time = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(1, 3)

    def forward(self, x: Tensor, angle: Tensor) -> Tensor:
        out: Tensor = torch.tanh(self.mix(x) + self.time(angle[:, None])[:, :, None, None])
        return out


@pytest.mark.parametrize("step", [0, 30, 400])
def test_the_loss_and_its_gradient_are_the_published_ones(step: int) -> None:
    network, teacher = Small().double(), Small().double()
    x0, noise = torch.randn(2, 5, 3, 4, 4, dtype=torch.float64)
    angle = angles(torch.randn(5, dtype=torch.float64), 0.2, 1.6)
    logvar = torch.randn(5, dtype=torch.float64)
    raw, wanted = published(network, teacher, x0, noise, angle, step, 100, logvar)
    theirs = torch.autograd.grad(wanted, list(network.parameters()))
    x = TrigPath().point(x0, noise, angle)
    dx = teacher(x, angle).detach()
    tangent = exact_tangent(network, x, angle, dx)
    trig = network(x, angle)
    g = direction(x, angle, trig.detach(), dx, tangent, min(1.0, step / 100))
    within("sprint, direction", g * SIGMA, raw, 1e-12)
    found = consistency_loss(trig, trig.detach() + normalised(g, 0.1), weights(angle, 1e-9), logvar)
    within("sprint, loss", found.detach(), wanted.detach(), 1e-12)
    for ours, their in zip(torch.autograd.grad(found, list(network.parameters())), theirs, strict=True):
        within("sprint, gradient of the loss", ours, their, 1e-10)


def test_angles_are_those_of_the_published_noise_levels() -> None:
    normal = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)
    wanted = torch.atan(torch.exp(normal * 1.6 + 0.2) / SIGMA)
    assert torch.equal(angles(normal, 0.2, 1.6), wanted)
    assert float(angles(torch.tensor([40.0]), 0.2, 1.6)) == pytest.approx(math.pi / 2)


def test_a_flow_model_is_asked_where_the_published_code_asks_it() -> None:
    angle, x = torch.tensor([0.1, 0.9, math.pi / 2]), torch.randn(3, 2, 4, 4)
    linear, s = linear_point(x, angle)
    wanted = angle.sin() / (angle.sin() + angle.cos())
    assert torch.allclose(s, wanted)
    factor = (wanted**2 + (1 - wanted) ** 2).sqrt().view(-1, 1, 1, 1)
    assert torch.allclose(linear, x * factor)


def test_the_weight_has_a_bound_and_is_the_inverse_noise_level_above_it() -> None:
    angle = torch.tensor([0.0, 1e-6, 0.1, 1.0, math.pi / 2])
    found = weights(angle, 0.01)
    assert found[:2].tolist() == pytest.approx([100.0, 100.0])
    assert torch.allclose(found[2:4], 1 / (SIGMA * angle[2:4].tan()))
    assert 0 <= abs(float(found[4])) < 1e-6


def test_the_norm_of_the_direction_is_over_a_sample() -> None:
    g = torch.randn(3, 2, 4, 4)
    long = torch.linalg.vector_norm(g, dim=(1, 2, 3), keepdim=True)
    assert torch.allclose(normalised(g, 0.1), g / (long + 0.2))
    assert torch.allclose(normalised(g, 0.1, "mean"), g / (long / 32**0.5 + 0.2))
    wide = g.repeat(1, 1, 2, 2)  # the same picture at twice the size
    assert torch.allclose(normalised(wide, 0.1, "mean")[:, :, :4, :4], normalised(g, 0.1, "mean"))


def test_differences_agree_with_the_exact_derivative() -> None:
    network = Small()
    x, dx, angle = torch.randn(4, 3, 4, 4), torch.randn(4, 3, 4, 4), angles(torch.randn(4), 0.2, 1.6)
    exact, near = (take(network, x, angle, dx) for take in (exact_tangent, difference_tangent))
    assert not exact.requires_grad and not near.requires_grad
    within("sprint, central difference", near, exact, 1e-3)


def velocity(x: Tensor, angle: Tensor) -> Tensor:
    """dx/da of Gaussian data at x [B, 2]: cos E[n | x] - sin E[x0 | x]."""
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]
    share = (x - cos * MEAN) / (cos**2 * STD**2 + sin**2)
    return cos * (sin * share) - sin * (MEAN + cos * STD**2 * share)


def arrival(x: Tensor, angle: Tensor) -> Tensor:
    """Where the flow takes x [B, 2]: the picture at the end of its trajectory."""
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]
    return MEAN + STD * (x - cos * MEAN) / (cos**2 * STD**2 + sin**2).sqrt()


class Mlp(nn.Module):
    """F for points of the plane."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 2)
        )

    def forward(self, x: Tensor, angle: Tensor) -> Tensor:
        clock = torch.stack([angle.cos(), angle.sin()], dim=1)
        out: Tensor = self.layers(torch.cat([x, clock], dim=1))
        return out


def distilled(steps: int, share: float) -> Mlp:
    """A network after so many steps of the loss. share: of the derivative in it, at its height."""
    model = Mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, betas=(0.9, 0.99))
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * (1 - step / steps)
        x0 = MEAN + STD * torch.randn(256, 2)
        angle = angles(torch.randn(256), 0.2, 1.6)
        x = TrigPath().point(x0, torch.randn(256, 2), angle)
        dx, trig = velocity(x, angle), model(x, angle)
        tangent = exact_tangent(model, x, angle, dx)
        g = direction(x, angle, trig.detach(), dx, tangent, share * min(1.0, step / 100))
        loss = consistency_loss(trig, trig.detach() + normalised(g, 0.1), weights(angle, 0.01))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def missed(model: Mlp, angle: float) -> float:
    """The root mean square distance between the network's jumps from an angle and where the flow goes."""
    at = torch.full((4000,), angle)
    x = TrigPath().point(MEAN + STD * torch.randn(4000, 2), torch.randn(4000, 2), at)
    with torch.no_grad():
        return float((x0_from_trig(x, model(x, at), at) - arrival(x, at)).square().mean().sqrt())


def test_a_student_of_a_gaussian_flow_learns_where_it_goes() -> None:
    """Without its derivative, or with a wrong sign, it draws the mean picture from pure noise, about 1 away."""
    model, without = distilled(300, 1.0), distilled(100, 0.0)
    found = {angle: missed(model, angle) for angle in (0.3, 0.8, 1.2, math.pi / 2)}
    assert max(found.values()) < 0.2, found
    assert missed(without, math.pi / 2) > 0.6
