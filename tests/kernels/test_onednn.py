"""Rows that run through oneDNN against float64: linear layers with their activation, and gated halves."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sanakit.base import ConfigError
from sanakit.base.chip import Chip
from sanakit.kernels import choice, depthwise_glu, table
from sanakit.kernels.choice import Problem
from sanakit.kernels.linear import Act
from tests.oracles import chips

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def rows(op: str, dtype: torch.dtype) -> list[table.Implementation]:
    """The rows of an operator that take a problem on this machine; the reference is always among them."""
    problem = Problem(op, "cpu", dtype)
    return [row for row in table.TABLE if row.op == op and row.refusal(problem) is None]


def near(got: Tensor, wanted: Tensor, tolerance: float) -> None:
    assert torch.linalg.norm(got.double() - wanted) <= tolerance * torch.linalg.norm(wanted) + 1e-12


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("act", ["none", "silu"])
@pytest.mark.parametrize("size", [(1, 1, 1, 1), (2, 3, 5, 7), (3, 11, 65, 130), (2, 0, 8, 4)])
@pytest.mark.parametrize("has_bias", [True, False])
def test_linear(dtype: torch.dtype, act: Act, size: tuple[int, ...], has_bias: bool) -> None:
    x, weight = torch.randn(size[:3]).to(dtype), torch.randn(size[3], size[2]).to(dtype)
    bias = torch.randn(size[3]).to(dtype) if has_bias else None
    wide = F.linear(x.double(), weight.double(), None if bias is None else bias.double())
    wanted = F.silu(wide) if act == "silu" else wide
    for row in rows("linear", dtype):
        got = row.run(x, weight if row.prepare is None else row.prepare(weight), bias, act)
        assert got.dtype == dtype
        near(got, wanted, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("size", [(1, 1, 1, 1), (2, 3, 5, 3), (1, 17, 2, 9)])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("has_bias", [True, False])
def test_depthwise_glu(
    dtype: torch.dtype, size: tuple[int, ...], channels_last: bool, has_bias: bool
) -> None:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    value, gate = (torch.randn(size).to(dtype).contiguous(memory_format=layout) for _ in range(2))
    weight = torch.randn(2 * size[1], 1, 3, 3).to(dtype)
    bias = torch.randn(2 * size[1]).to(dtype) if has_bias else None
    joined = F.conv2d(
        torch.cat([value, gate], dim=1).double(), weight.double(),
        None if bias is None else bias.double(), padding=1, groups=len(weight),
    )  # fmt: skip
    first, second = joined.chunk(2, dim=1)
    for row in rows("depthwise_glu", dtype):
        with choice.force("depthwise_glu", row.name):
            near(depthwise_glu(value, gate, weight, bias), first * F.silu(second), TOLERANCE[dtype])


def test_gradients_go_to_the_reference() -> None:
    """Rows without a backward pass say so; the reference gives the gradients of the formula."""
    value, gate = (torch.randn(2, 3, 4, 5, requires_grad=True) for _ in range(2))
    weight = torch.randn(6, 1, 3, 3)
    out = depthwise_glu(value, gate, weight, None)
    assert out.grad_fn is not None
    with choice.force("depthwise_glu", "onednn"), pytest.raises(ConfigError, match="backward|CPU|oneDNN"):
        depthwise_glu(value, gate, weight, None)
    wide = [t.detach().double().requires_grad_() for t in (value, gate)]
    mixed = F.conv2d(torch.cat(wide, dim=1), weight.double(), padding=1, groups=6)
    wanted = mixed[:, :3] * F.silu(mixed[:, 3:])
    down = torch.randn_like(wanted)
    for got, want in zip(
        torch.autograd.grad((out.double() * down).sum(), (value, gate)),
        torch.autograd.grad((wanted * down).sum(), wide),
        strict=True,
    ):
        near(got, want, 1e-5)


def test_broken_numbers_show() -> None:
    """NaN stays in its own row, and memory of freed tensors does not leak into results."""
    x, weight = torch.randn(5, 8), torch.randn(3, 8)
    x[2, 1] = float("nan")
    for row in rows("linear", torch.float32):
        packed = weight if row.prepare is None else row.prepare(weight)
        poison = [torch.full((5, 3), float("nan")) for _ in range(8)]
        del poison
        got = row.run(x, packed, None, "silu")
        assert got.isnan().any(1).tolist() == [False, False, True, False, False]


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        (Problem("linear", "cuda", torch.bfloat16), "CPUs only"),
        (Problem("linear", "cpu", torch.float16), "bf16 and float32"),
        (Problem("linear", "cpu", torch.float32, (("training", 1),)), "backward"),
    ],
)
def test_refusals_are_told(problem: Problem, reason: str) -> None:
    lines = choice.explain(problem)
    assert reason in lines[0]
    assert lines[-1] == "linear: reference: chosen"


@pytest.mark.parametrize(
    ("chip", "reason"),
    [(chips.ARM, "packs for x86, and this CPU is aarch64"), (chips.SWITCHED_OFF, "switched off")],
)
@pytest.mark.parametrize("op", ["linear", "conv", "depthwise_glu"])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_other_chips_get_the_reference_and_a_reason(
    monkeypatch: pytest.MonkeyPatch, chip: Chip, reason: str, op: str, dtype: torch.dtype
) -> None:
    with chips.on(monkeypatch, chip):
        lines = choice.explain(Problem(op, "cpu", dtype, (("width", 64),)))
    assert lines[-1] == f"{op}: reference: chosen"
    assert lines[-2].startswith(f"{op}: onednn: refuses: ") and reason in lines[-2]


def test_onednn_that_is_switched_off_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """By torch's own switch, in the middle of a process."""
    problem = Problem("linear", "cpu", torch.float32)
    before = choice.select("linear", problem).name
    with chips.without_onednn():
        assert choice.select("linear", problem).name == "reference"
    assert choice.select("linear", problem).name == before
