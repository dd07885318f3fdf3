"""The operators of the autoencoder against float64: every row that takes the problem, values, gradients, odd sizes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sanakit.base.chip import Chip
from sanakit.kernels import choice, conv, rms_norm, table, winograd
from sanakit.kernels.choice import Problem
from sanakit.kernels.conv import split_taps, upsample_conv
from sanakit.kernels.rms_norm import cpu as rms_cpu

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
LAYOUTS = [torch.contiguous_format, torch.channels_last]


def able(op: str, dtype: torch.dtype, **facts: int) -> list[table.Implementation]:
    problem = Problem.of(op, torch.empty(0, dtype=dtype), **facts)
    return [row for row in table.TABLE if row.op == op and row.refusal(problem) is None]


def near(got: Tensor, wanted: Tensor, tolerance: float) -> None:
    assert got.shape == wanted.shape
    assert torch.linalg.norm(got.double() - wanted) <= tolerance * torch.linalg.norm(wanted) + 1e-12


def poisoned(run: Callable[[], Tensor]) -> Tensor:
    """The result of `run` where fresh memory is likely to hold NaN."""
    junk = [torch.full((1 << n,), float("nan")) for n in range(4, 14)]
    del junk
    return run()


def naive_norm(x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    wide = x.double()
    normed = wide / (wide.square().mean(1, keepdim=True) + eps).sqrt()
    out = normed * weight.double()[:, None, None]
    out = out if bias is None else out + bias.double()[:, None, None]
    return out if residual is None else out + residual.double()


def naive_upsample(x: Tensor, weight: Tensor, bias: Tensor | None, shortcut: bool) -> Tensor:
    wide = x.double()
    large = wide.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    out = F.conv2d(large, weight.double(), None if bias is None else bias.double(), padding=1)
    if not shortcut:
        return out
    repeated = wide.repeat_interleave(4 * len(weight) // x.shape[1], dim=1)  # [B, 4D, h, w]
    places = repeated.unflatten(1, (-1, 2, 2)).permute(0, 1, 4, 2, 5, 3)  # [B, D, h, 2, w, 2]
    return out + places.flatten(4).flatten(2, 3)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("size", [(1, 1, 1, 1, 1), (2, 3, 5, 3, 7), (1, 33, 4, 9, 3)])
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("act", ["none", "silu"])
def test_conv(
    dtype: torch.dtype, size: tuple[int, ...], kernel: int, layout: torch.memory_format, act: str
) -> None:
    batch, inputs, outputs, height, width = size
    x = torch.randn(batch, inputs, height, width).to(dtype).contiguous(memory_format=layout)
    weight, bias = torch.randn(outputs, inputs, kernel, kernel).to(dtype), torch.randn(outputs).to(dtype)
    for b in (bias, None):
        plain = F.conv2d(x.double(), weight.double(), None if b is None else b.double(), padding=kernel // 2)
        for row in able("conv", dtype, width=min(inputs, outputs)):
            with choice.force("conv", row.name):
                got = poisoned(lambda b=b: conv(x, weight, b, act))
            near(got, F.silu(plain) if act == "silu" else plain, TOLERANCE[dtype])


@pytest.mark.parametrize("size", [(1, 1, 1, 1, 1), (2, 3, 5, 4, 8), (2, 5, 3, 9, 7), (1, 33, 4, 18, 3)])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("band", [1, 1 << 16])
def test_winograd(
    size: tuple[int, ...], layout: torch.memory_format, band: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(winograd, "_BAND", band)  # a row of tiles, or all of them
    batch, inputs, outputs, height, width = size
    x = torch.randn(batch, inputs, height, width).contiguous(memory_format=layout)
    weight, bias = torch.randn(outputs, inputs, 3, 3).contiguous(memory_format=layout), torch.randn(outputs)
    plain = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    near(poisoned(lambda: winograd.conv(x, weight, bias)), plain, 1e-5)
    got = poisoned(lambda: winograd.conv(x, weight, None, "silu"))
    near(got, F.silu(plain - bias.double()[:, None, None]), 1e-5)
    assert got.is_contiguous(memory_format=torch.channels_last)


def test_winograd_takes_wide_maps_of_chips_that_it_was_measured_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def refusal(dtype: torch.dtype = torch.float32, device: str = "cpu", **facts: int) -> str | None:
        usual = {"taps": 3, "width": 512, "positions": 4096}
        return winograd.unsupported(Problem("conv", device, dtype, tuple((usual | facts).items())))

    monkeypatch.setattr(winograd, "this_chip", lambda: Chip(features=frozenset({"avx2"})))
    assert refusal() is None
    assert all(
        refusal(**facts) is not None
        for facts in (
            {"taps": 5},
            {"width": 128},
            {"positions": 1023},
            {"device": "cuda"},
            {"dtype": torch.bfloat16},
        )
    )
    monkeypatch.setattr(winograd, "this_chip", lambda: Chip(features=frozenset({"avx2", "avx512f"})))
    assert "AVX-512" in str(refusal())


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("size", [(1, 1, 1, 1), (2, 3, 5, 7), (3, 130, 4, 3)])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("adds", [True, False])
def test_residual_norm(
    dtype: torch.dtype,
    size: tuple[int, ...],
    layout: torch.memory_format,
    adds: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rms_cpu, "_PIECE", 2 * size[1] + 1)  # pieces of two positions, the last one shorter
    x, residual = (torch.randn(size).to(dtype).contiguous(memory_format=layout) * 3 for _ in range(2))
    weight, bias = torch.randn(size[1]).to(dtype), torch.randn(size[1]).to(dtype)
    added = residual if adds else None
    for row in able("rms_norm", dtype):
        for b in (bias, None):
            with choice.force("rms_norm", row.name):
                got = poisoned(lambda b=b: rms_norm(x, added, weight, b, 1e-5))
            assert got.dtype == dtype
            near(got, naive_norm(x, added, weight, b, 1e-5), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("channels", [(1, 1), (4, 4), (8, 4), (8, 2), (4, 6), (3, 3)])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shortcut", [True, False])
def test_upsample_conv(
    dtype: torch.dtype, channels: tuple[int, int], layout: torch.memory_format, shortcut: bool
) -> None:
    """Shortcuts that repeat channels, keep them, or thin them out, and sizes of one position."""
    inputs, outputs = channels
    weight, bias = torch.randn(outputs, inputs, 3, 3).to(dtype), torch.randn(outputs).to(dtype)
    for height, width in ((1, 1), (3, 5)):
        x = torch.randn(2, inputs, height, width).to(dtype).contiguous(memory_format=layout)
        for row in able("upsample_conv", dtype):
            ready = weight if row.prepare is None else row.prepare(weight)
            for b in (bias, None):
                got = poisoned(lambda x=x, b=b, row=row, ready=ready: row.run(x, ready, b, shortcut))
                near(got, naive_upsample(x, weight, b, shortcut), TOLERANCE[dtype])


def test_nine_taps_are_sixteen() -> None:
    """Each of the nine taps stands once in every quarter."""
    ready = split_taps(torch.ones(1, 1, 3, 3))
    assert ready.shape == (4, 1, 1, 2, 2)
    assert ready.sum((1, 2, 3, 4)).tolist() == [9.0] * 4
    assert ready[0, 0, 0].tolist() == [[1.0, 2.0], [2.0, 4.0]]


@pytest.mark.parametrize("op", ["conv", "rms_norm"])
def test_gradients_are_those_of_the_formula(op: str) -> None:
    x, residual = (torch.randn(2, 3, 4, 5, requires_grad=True) for _ in range(2))
    weight = torch.randn((4, 3, 3, 3) if op == "conv" else (3,), requires_grad=True)
    bias = torch.randn(len(weight), requires_grad=True)
    leaves = [x, weight, bias] if op == "conv" else [x, residual, weight, bias]
    wide = [leaf.detach().double().requires_grad_() for leaf in leaves]
    if op == "conv":
        got, wanted = conv(*leaves, "silu"), F.silu(F.conv2d(*wide, padding=1))
    else:
        got, wanted = rms_norm(*leaves, 1e-5), naive_norm(*wide, 1e-5)
    down = torch.randn_like(wanted)
    for mine, theirs in zip(
        torch.autograd.grad((got.double() * down).sum(), leaves),
        torch.autograd.grad((wanted * down).sum(), wide),
        strict=True,
    ):
        near(mine, theirs, 1e-5)


def test_the_reference_of_upsampling_trains() -> None:
    x, weight = torch.randn(1, 4, 3, 3, requires_grad=True), torch.randn(4, 4, 3, 3, requires_grad=True)
    wide = [t.detach().double().requires_grad_() for t in (x, weight)]
    down = torch.randn(1, 4, 6, 6, dtype=torch.float64)
    got = torch.autograd.grad((upsample_conv(x, weight, None, True).double() * down).sum(), (x, weight))
    wanted = torch.autograd.grad((naive_upsample(*wide, None, True) * down).sum(), wide)
    for mine, theirs in zip(got, wanted, strict=True):
        near(mine, theirs, 1e-5)
    for op in ("conv", "rms_norm", "upsample_conv"):
        lines = choice.explain(Problem(op, "cpu", torch.float32, (("training", 1),)))
        assert any("has no backward pass" in line for line in lines)
