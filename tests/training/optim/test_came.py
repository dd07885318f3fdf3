"""CAME against the public package and against the paper in float64, its 8-bit form against itself, and its memory."""

from __future__ import annotations

import pytest
import torch
from came_pytorch import CAME as TheirCAME
from torch import Tensor, nn

from sanakit.base.errors import ConfigError, WeightsError
from sanakit.training.optim import (
    CAME,
    OptimizerConfig,
    build_optimizer,
    from_blocks,
    optimiser_bytes,
    to_blocks,
)

SHAPES = {
    "matrix": (24, 40),
    "1x1": (12, 20, 1, 1),
    "depthwise": (16, 1, 3, 3),
    "dense": (6, 4, 3, 3),
    "vector": (33,),
}
STEPS = 60


def gradients(shape: tuple[int, ...], steps: int = STEPS, scale: float = 1.0) -> list[Tensor]:
    """A drifting mean under noise, rows of very different sizes: what the factors are for."""
    generator = torch.Generator().manual_seed(7)
    sizes = torch.rand((shape[0], *[1] * (len(shape) - 1)), generator=generator) * 10 + 0.01
    mean = torch.randn(shape, generator=generator)
    return [
        scale * sizes * (mean * (1 - step / steps) + torch.randn(shape, generator=generator))
        for step in range(steps)
    ]


def walked(
    optimizer_of: object, start: Tensor, grads: list[Tensor], seen: tuple[int, ...] | None = None
) -> Tensor:
    """Where an optimiser takes `start`, which it is shown in the shape `seen`."""
    parameter = nn.Parameter(start.clone().reshape(seen or start.shape))
    optimizer = optimizer_of([parameter])  # type: ignore[operator]
    for grad in grads:
        parameter.grad = grad.reshape(parameter.shape).clone()
        optimizer.step()
    return parameter.detach().reshape(start.shape)


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("name", SHAPES)
def test_the_package_is_followed_on_every_shape(name: str, decay: float) -> None:
    start, grads = torch.randn(SHAPES[name]), gradients(SHAPES[name])
    ours = walked(lambda p: CAME(p, lr=1e-2, weight_decay=decay, last_axes=True), start, grads)
    theirs = walked(lambda p: TheirCAME(p, lr=1e-2, weight_decay=decay), start, grads)
    assert (ours - start).abs().mean() > 0.02
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "seen"),
    [("1x1", (12, 20)), ("depthwise", (144,)), ("dense", (6, 36)), ("matrix", (24, 40)), ("vector", (33,))],
)
def test_convolutions_are_what_sana_takes_them_for(name: str, seen: tuple[int, ...]) -> None:
    """1x1 and dense as matrices, depthwise in full: the package says the same of a parameter in that shape."""
    start, grads = torch.randn(SHAPES[name]), gradients(SHAPES[name])
    ours = walked(lambda p: CAME(p, lr=1e-2), start, grads)
    theirs = walked(lambda p: TheirCAME(p, lr=1e-2), start, grads, seen)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def paper(start: Tensor, grads: list[Tensor], lr: float) -> Tensor:
    """Algorithm 2 of arXiv 2307.02047 as printed, for a matrix, in float64."""
    theta, m = start.double(), torch.zeros_like(start, dtype=torch.float64)
    n, width = start.shape
    r, c, big_r, big_c = (torch.zeros(k, dtype=torch.float64) for k in (n, width, n, width))
    for grad in grads:
        square = grad.double().square() + 1e-30
        r = 0.999 * r + 0.001 * square.sum(1)
        c = 0.999 * c + 0.001 * square.sum(0)
        u = grad.double() / (torch.outer(r, c) / r.sum()).sqrt()
        u = u / max(1.0, u.square().mean().sqrt().item())
        m = 0.9 * m + 0.1 * u
        instability = (u - m).square() + 1e-16
        big_r = 0.9999 * big_r + 0.0001 * instability.sum(1)
        big_c = 0.9999 * big_c + 0.0001 * instability.sum(0)
        theta = theta - lr * m / (torch.outer(big_r, big_c) / big_r.sum()).sqrt()
    return theta


def test_the_paper_is_followed() -> None:
    start, grads = torch.randn(24, 40), gradients((24, 40))
    ours = walked(lambda p: CAME(p, lr=1e-2), start, grads)
    torch.testing.assert_close(ours.double(), paper(start, grads, 1e-2), rtol=1e-4, atol=1e-5)


def test_gradients_of_zero_and_of_half_precision_stay_finite() -> None:
    zero = walked(lambda p: CAME(p, lr=1e-2), torch.ones(4, 5), [torch.zeros(4, 5)] * 3)
    assert torch.equal(zero, torch.ones(4, 5))
    parameter = nn.Parameter(torch.ones(4, 5, dtype=torch.bfloat16))
    optimizer = CAME([parameter], lr=1e-2)
    parameter.grad = torch.full_like(parameter, 1e-20)
    optimizer.step()
    assert parameter.isfinite().all()
    assert all(kept.dtype == torch.float32 for kept in optimizer.state[parameter].values())


@pytest.mark.parametrize("width", [256, 300, 40])
def test_bytes_keep_values_to_half_a_step_of_their_own_block(width: int) -> None:
    x = torch.distributions.StudentT(3.0).sample((7, width))
    x[2, :17] *= 1e-4
    x[3] = 0
    x[4, 0] = 1e6
    codes, scales = to_blocks(x, 32)
    assert (codes.dtype, codes.shape, scales.shape) == (torch.int8, x.shape, (7, -(-width // 32)))
    back = from_blocks(codes, scales, 32)
    for start in range(0, width, 32):
        block = slice(start, start + 32)
        step = x[:, block].abs().amax(1, keepdim=True) / 127
        assert ((back[:, block] - x[:, block]).abs() <= 0.501 * step).all()
    assert not back[3].any()
    assert torch.equal(back.sign()[codes != 0], x.sign()[codes != 0])


def test_eight_bits_walk_beside_thirty_two() -> None:
    """200 steps of a 128 x 256 matrix: 32,768 values, so its first moment is in bytes."""
    shape = (128, 256)
    start, grads = torch.randn(shape), gradients(shape, 200)
    exact = walked(lambda p: CAME(p, lr=1e-3), start, grads)
    packed = walked(lambda p: CAME(p, lr=1e-3, block=256), start, grads)
    path = (exact - start).square().mean().sqrt()
    apart = (packed - exact).square().mean().sqrt() / path
    assert 1e-5 < apart < 0.01


def small_model() -> nn.Module:
    return nn.Sequential(
        nn.Linear(256, 256), nn.LayerNorm(256), nn.Conv2d(8, 8, 3, groups=8), nn.Linear(64, 64)
    )


def stepped(config: OptimizerConfig, model: nn.Module) -> torch.optim.Optimizer:
    optimizer = build_optimizer(model, config)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    return optimizer


def test_only_large_matrices_are_in_bytes() -> None:
    model = small_model()
    optimizer = stepped(OptimizerConfig(name="came-8bit"), model)
    packed = {name for name, p in model.named_parameters() if "exp_avg_codes" in optimizer.state[p]}
    assert packed == {"0.weight"}
    assert set(optimizer.state[model[2].weight]) == {"exp_avg", "exp_avg_sq"}


def test_memory_is_counted() -> None:
    matrix = nn.Linear(1024, 512, bias=False)
    values, factors = 1024 * 512, 2 * (1024 + 512) * 4
    wanted = {
        "adamw": 8 * values + 4,
        "came": 4 * values + factors,
        "came-8bit": values + 4 * values // 256 + factors,
    }
    for name, size in wanted.items():
        assert optimiser_bytes(stepped(OptimizerConfig(name=name), matrix)) == size, name
    assert wanted["came-8bit"] < 0.13 * wanted["adamw"]


def test_a_state_of_another_optimiser_is_refused() -> None:
    model = nn.Linear(256, 256)
    came = stepped(OptimizerConfig(name="came"), model)
    with pytest.raises(WeightsError, match="of another optimiser: it holds .*'exp_avg'"):
        build_optimizer(model, OptimizerConfig(name="came-8bit")).load_state_dict(came.state_dict())
    adam = build_optimizer(model, OptimizerConfig(lr=1e-3))
    model(torch.ones(1, 256)).sum().backward()
    adam.step()
    with pytest.raises(WeightsError, match="another optimiser"):
        build_optimizer(model, OptimizerConfig(name="came")).load_state_dict(adam.state_dict())


def test_nothing_to_train_is_said() -> None:
    model = nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(ConfigError, match="no parameter that is trained"):
        build_optimizer(model, OptimizerConfig())
