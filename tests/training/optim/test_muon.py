"""Muon: its matrices against a singular value decomposition and against torch's own, its groups, what it refuses."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from sanakit.base.errors import ConfigError
from sanakit.training.optim import Muon, OptimizerConfig, build_optimizer, hidden_groups, orthogonalised
from sanakit.transformer import PRESETS, SanaTransformer


def by_decomposition(matrix: Tensor) -> Tensor:
    """U f(S) V^T, the five quintics applied to the singular values themselves."""
    u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    s = s / s.norm()
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return (u * s @ v).float()


@pytest.mark.parametrize("shape", [(24, 24), (40, 7), (5, 33), (1, 9), (9, 1)])
def test_newton_schulz_is_a_polynomial_of_the_singular_values(shape: tuple[int, int]) -> None:
    torch.manual_seed(1)
    matrix = torch.randn(shape) * 37
    found = orthogonalised(matrix)
    torch.testing.assert_close(found, by_decomposition(matrix), atol=2e-4, rtol=1e-3)
    assert found.shape == matrix.shape
    assert found.dtype == torch.float32


def test_all_directions_become_about_equally_long() -> None:
    torch.manual_seed(2)
    left, right = (torch.linalg.qr(torch.randn(64, 16))[0] for _ in range(2))
    matrix = left @ torch.diag(torch.logspace(0, -2, 16)) @ right.T + 0.0
    lengths = torch.linalg.svdvals(orthogonalised(matrix))[:16]
    assert float(lengths.min()) > 0.5
    assert float(lengths.max()) < 1.3


def test_a_matrix_of_zeros_stays() -> None:
    assert not orthogonalised(torch.zeros(3, 5)).any()


@pytest.mark.parametrize("shape", [(48, 32), (16, 64)])
def test_matrices_follow_torch(shape: tuple[int, int]) -> None:
    """torch orthogonalises in bf16: the difference is that rounding's."""
    torch.manual_seed(0)
    start = torch.randn(shape)
    ours, theirs = (nn.Parameter(start.clone()) for _ in range(2))
    fields = {"lr": 0.01, "weight_decay": 0.1, "momentum": 0.9}
    pair = (
        Muon([ours], **fields),
        torch.optim.Muon([theirs], adjust_lr_fn="match_rms_adamw", **fields),
    )
    for step in range(12):
        for parameter, optimizer in zip((ours, theirs), pair, strict=True):
            parameter.grad = torch.randn(shape, generator=torch.Generator().manual_seed(step))
            optimizer.step()
    apart, path = (ours - theirs).detach().norm(), (theirs - start).detach().norm()
    assert float(apart / path) < 0.02


def test_a_step_is_as_large_as_adamw_s() -> None:
    """0.2 of the learning rate in every entry, whatever the shape (arXiv 2502.16982, section 2.2)."""
    torch.manual_seed(0)
    for shape in ((64, 64), (256, 32)):
        weight = nn.Parameter(torch.zeros(shape))
        weight.grad = torch.randn(shape)
        Muon([weight], lr=1.0).step()
        assert float(weight.detach().square().mean().sqrt()) == pytest.approx(0.2, rel=0.2)


def test_everything_else_follows_adamw_to_the_bit() -> None:
    torch.manual_seed(0)
    start = [torch.randn(6, 5), torch.randn(7), torch.randn(4, 1, 3, 3)]
    ours, theirs = ([nn.Parameter(x.clone()) for x in start] for _ in range(2))
    fields = {"lr": 0.01, "weight_decay": 0.1, "betas": (0.9, 0.99), "fused": True}
    pair = (
        Muon([{"params": ours, "orthogonal": False}], **fields),
        torch.optim.AdamW(theirs, **fields),
    )
    for step in range(5):
        for parameters, optimizer in zip((ours, theirs), pair, strict=True):
            generator = torch.Generator().manual_seed(step)
            for parameter in parameters:
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            optimizer.step()
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b)


def test_hidden_matrices_are_those_of_blocks() -> None:
    model = SanaTransformer(PRESETS["toybox"])
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = [[names[id(p)] for p in group["params"]] for group in hidden_groups(model, 0.3)]
    wanted = (
        "attention.qkv",
        "attention.out",
        "cross.q",
        "cross.kv",
        "cross.out",
        "ffn.expand",
        "ffn.project",
    )
    assert sorted(groups[0]) == sorted(f"blocks.{n}.{name}.weight" for n in range(10) for name in wanted)
    assert {"head.out.weight", "patch.weight", "modulation.weight", "blocks.3.table"} <= set(groups[1])
    assert "blocks.0.ffn.depthwise.weight" in groups[1]
    assert sorted(names.values()) == sorted(name for group in groups for name in group)
    decays = [group["weight_decay"] for group in hidden_groups(model, 0.3)]
    assert decays == [0.3, 0.3, 0.0]


def test_convolutions_of_one_pixel_are_matrices() -> None:
    torch.manual_seed(0)
    start, grad = torch.randn(8, 6), torch.randn(8, 6)
    matrix, convolution = nn.Parameter(start.clone()), nn.Parameter(start.clone()[..., None, None])
    matrix.grad, convolution.grad = grad, grad[..., None, None]
    Muon([matrix, convolution], lr=0.1).step()
    torch.testing.assert_close(convolution[..., 0, 0], matrix)
    assert not torch.equal(matrix, start)


def test_products_are_in_the_dtype_of_the_run_on_every_chip() -> None:
    torch.manual_seed(0)
    start, grad = torch.randn(24, 16), torch.randn(24, 16)
    step = 0.1 * 0.2 * math.sqrt(24) * orthogonalised(grad)
    for dtype, least, most in ((None, 0.0, 1e-5), (torch.bfloat16, 1e-4, 0.02)):
        model = nn.ModuleList([nn.Linear(16, 24, bias=False)])
        model[0].weight.data.copy_(start)
        model[0].weight.grad = grad.clone()
        settings = OptimizerConfig(name="muon", lr=0.1, weight_decay=0.0)
        optimizer = (
            build_optimizer(model, settings) if dtype is None else build_optimizer(model, settings, dtype)
        )
        optimizer.step()
        apart = float((start - step - model[0].weight.detach()).norm() / step.norm())
        assert least <= apart <= most


def test_what_muon_can_t_move_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"muon moves matrices, not tensors of shape \[4, 2, 3, 3\]"):
        Muon([torch.zeros(4, 2, 3, 3)])
    with pytest.raises(ConfigError, match="muon needs matrices in blocks, and none is trained; take adamw"):
        build_optimizer(nn.Linear(3, 3), OptimizerConfig(name="muon"))
