"""Optimisers from data: groups, exact continuation, what is missing; learning rates."""

from __future__ import annotations

import builtins
import io
import math
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from sanakit.base.errors import ConfigError
from sanakit.training.optim import (
    CAME,
    OptimizerConfig,
    OptimizerName,
    build_optimizer,
    lr_for_batch,
    optimiser_bytes,
    parameter_groups,
    trapezoid,
    warm_constant,
)
from sanakit.transformer import PRESETS, SanaTransformer

PAGE = Path(__file__).parents[3] / "docs" / "optimizers.md"
OURS: tuple[OptimizerName, ...] = ("adamw", "came", "came-8bit", "muon")


def network(dtype: torch.dtype = torch.float32) -> nn.Module:
    """A list of a matrix that came-8bit packs, one that it does not, a depthwise convolution and a norm."""
    torch.manual_seed(3)
    parts = (nn.Linear(160, 128), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 6, 1), nn.LayerNorm(9))
    return nn.ModuleList(parts).to(dtype)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
        optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", OURS)
def test_a_loaded_state_goes_on_to_the_bit(name: OptimizerName, dtype: torch.dtype) -> None:
    config = OptimizerConfig(name=name, lr=1e-2, weight_decay=0.1)
    whole, parts, later = network(dtype), network(dtype), network(dtype)
    train(whole, build_optimizer(whole, config), range(9))
    first = build_optimizer(parts, config)
    train(parts, first, range(4))
    file = io.BytesIO()
    torch.save({"model": parts.state_dict(), "optimizer": first.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    later.load_state_dict(saved["model"])
    second = build_optimizer(later, config)
    second.load_state_dict(saved["optimizer"])
    assert optimiser_bytes(second) == optimiser_bytes(first)
    train(later, second, range(4, 9))
    for a, b in zip(whole.parameters(), later.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_loaded_state_is_a_copy() -> None:
    model = network()
    first, second = CAME(model.parameters()), CAME(model.parameters())
    train(model, first, range(2))
    saved = first.state_dict()
    before = saved["state"][0]["exp_avg"].clone()
    second.load_state_dict(saved)
    train(model, second, range(2, 4))
    assert torch.equal(saved["state"][0]["exp_avg"], before)


def test_matrices_decay_and_nothing_else() -> None:
    model = network()
    model[0].weight.requires_grad_(False)
    matrices, vectors = parameter_groups(model, 0.3)
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.3, 0.0)
    assert [tuple(p.shape) for p in matrices["params"]] == [(4, 1, 3, 3), (6, 4, 1, 1)]
    assert all(p.ndim == 1 for p in vectors["params"])
    assert len(vectors["params"]) == 5


@pytest.mark.parametrize("name", OURS)
def test_decay_is_decoupled(name: OptimizerName) -> None:
    model = nn.ModuleList([nn.Linear(3, 3)])
    weight, bias = model[0].weight, model[0].bias
    before = weight.detach().clone(), bias.detach().clone()
    optimizer = build_optimizer(model, OptimizerConfig(name=name, lr=0.1, weight_decay=0.5))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(weight, before[0] * 0.95)
    assert torch.equal(bias, before[1])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "lion"}, "'lion' is unknown; take one of adamw, came"),
        ({"name": "came", "betas": (0.9, 0.99)}, "came takes 3 betas, not 2"),
        ({"eps": (1e-8, 1e-8)}, "adamw takes 1 eps, not 2"),
        ({"betas": (0.9, 1.0)}, r"optimizer.betas\[1\] is 1.0; it must be at least 0 and below 1"),
        ({"lr": -1.0}, "optimizer.lr is -1.0; it must be at least 0 and at most 100"),
        ({"name": "muon", "momentum": 1.0}, "optimizer.momentum is 1.0; it must be at least 0 and below 1"),
        ({"block": 0}, "optimizer.block is 0; it must be at least 1"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        OptimizerConfig(**fields)  # type: ignore[arg-type]


def test_published_numbers_are_the_defaults() -> None:
    came = OptimizerConfig(name="came-8bit")
    assert (came.decays, came.epsilons) == ((0.9, 0.999, 0.9999), (1e-30, 1e-16))
    assert (came.clip_threshold, came.weight_decay) == (1.0, 0.0)


def test_a_missing_library_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = builtins.__import__

    def without(name: str, *rest: object, **more: object) -> object:
        if name.startswith("torchao"):
            raise ImportError(name)
        return usual(name, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r'pip install "sanakit\[adamw-8bit\]"'):
        build_optimizer(network(), OptimizerConfig(name="adamw-8bit"))


def test_learning_rates_grow_with_the_batch_as_asked() -> None:
    assert lr_for_batch(1e-4, 1024) == 1e-4
    assert lr_for_batch(1e-4, 1024, "sqrt") == pytest.approx(2e-4)
    assert lr_for_batch(1e-4, 64, "linear") == pytest.approx(2.5e-5)
    assert lr_for_batch(1e-4, 64, "sqrt", base=64) == pytest.approx(1e-4)
    with pytest.raises(ConfigError, match="take none, sqrt or linear"):
        lr_for_batch(1e-4, 64, "cubic")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="at least 1"):
        lr_for_batch(1e-4, 0, "sqrt")


def test_the_published_shape_warms_up_and_stays() -> None:
    assert warm_constant(0) == pytest.approx(1 / 2000)
    assert [warm_constant(step) for step in (999, 1999, 2000, 10**7)] == [0.5, 1.0, 1.0, 1.0]
    assert warm_constant(0, warmup=0) == 1.0
    assert all(
        math.isclose(trapezoid(step, 10**6, 2000, 0.0), warm_constant(step)) for step in (0, 500, 5000)
    )


def test_the_page_of_optimisers_is_right() -> None:
    """Its example runs, and Toybox's row of the memory table is what is counted."""
    text = PAGE.read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, object] = {"model": network()}
    exec(compile(example, str(PAGE), "exec"), names)
    assert isinstance(names["optimizer"], CAME)
    model = SanaTransformer(PRESETS["toybox"])
    count = sum(p.numel() for p in model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    found = []
    for name in OURS:
        optimizer = build_optimizer(model, OptimizerConfig(name=name))
        optimizer.step()
        found.append(f"{optimiser_bytes(optimizer) / count:.2f}")
    assert f"| `toybox` | {count / 1e6:.1f} M | {' | '.join(found)} |" in text
