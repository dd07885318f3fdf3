"""Products in fp8: rounding, the chip's product against the definition, refusals in words, layers of a model."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sanakit.adapt.quantise import Fp8Linear, to_fp8
from sanakit.base.errors import RequestError
from sanakit.base.precision import Precision
from sanakit.kernels import fp8_matmul
from sanakit.kernels.problem import Problem
from sanakit.kernels.quant_matmul import gpu as quant_gpu
from sanakit.kernels.quant_matmul.reference import quantise_rows_fp8
from sanakit.pipeline.engine import choose_engine

CUDA = Precision(torch.device("cuda"), torch.bfloat16, "as asked")


def relative(got: torch.Tensor, wanted: torch.Tensor) -> float:
    return float(torch.linalg.norm(got.double() - wanted.double()) / torch.linalg.norm(wanted.double()))


def test_rows_are_rounded_to_three_bits_behind_the_point() -> None:
    x = torch.randn(20, 200) * torch.logspace(-30, 30, 20)[:, None]
    x[4] = 0
    values, scales = quantise_rows_fp8(x)
    assert values.dtype == torch.float8_e4m3fn
    back = values.double() * scales.double()[:, None]
    largest = x.double().abs().amax(1, keepdim=True)
    small = largest * 2.0**-6 / 448  # below it, numbers of e4m3 are evenly spaced
    assert bool(((back - x).abs() <= x.double().abs() / 16 + small).all())
    assert bool((back[4] == 0).all())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("act", ["none", "silu"])
def test_the_scaled_product_is_the_definition(bias: bool, act: str) -> None:
    # torch multiplies fp8 on CPUs as well, slowly: the arithmetic is that of the chip.
    x, added = torch.randn(3, 11, 64).bfloat16(), torch.randn(48).bfloat16() if bias else None
    weight, scales = quantise_rows_fp8(torch.randn(48, 64))
    got = quant_gpu.fp8_matmul(x, weight, scales, added, act)
    assert got.dtype == torch.bfloat16
    assert relative(got, fp8_matmul(x.double(), weight, scales, added, act)) < 4e-3


def test_the_gradient_is_that_of_the_weights_as_they_are() -> None:
    weight, scales = quantise_rows_fp8(torch.randn(5, 16))
    x, bias = torch.randn(3, 16, requires_grad=True), torch.randn(5, requires_grad=True)
    fp8_matmul(x, weight, scales, bias).sum().backward()
    assert x.grad is not None and bias.grad is not None
    torch.testing.assert_close(x.grad, (weight.float() * scales[:, None]).sum(0).expand(3, -1))
    torch.testing.assert_close(bias.grad, torch.full((5,), 3.0))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_visible(bad: float) -> None:
    x = torch.ones(2, 16)
    x[1, 3] = bad
    weight, scales = quantise_rows_fp8(torch.randn(5, 16))
    out = fp8_matmul(x, weight, scales, None)
    assert bool(out[0].isfinite().all()) and not bool(out[1].isfinite().any())


def test_it_says_why_it_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    here = Problem("fp8_matmul", "cuda", torch.bfloat16)
    assert quant_gpu.unsupported_fp8(Problem("fp8_matmul", "cpu", torch.bfloat16)) == "runs on CUDA GPUs only"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    assert quant_gpu.unsupported_fp8(here) == "needs a CUDA GPU and its driver"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    assert (
        quant_gpu.unsupported_fp8(here)
        == "needs a GPU of compute capability 9.0 or newer, and this one has 8.0"
    )
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    assert quant_gpu.unsupported_fp8(here) is None
    assert quant_gpu.unsupported_fp8(Problem("fp8_matmul", "cuda", torch.float16)) == "gives bf16 only"


@torch.no_grad()
def test_layers_are_replaced_where_the_product_takes_them() -> None:
    model = nn.Sequential(nn.Linear(256, 32), nn.Linear(32, 256), nn.Linear(256, 33))
    x = torch.randn(4, 256)
    wanted = model[0](x)
    report = to_fp8(model)
    assert (report.replaced, set(report.kept)) == (("0",), {"1", "2"})
    assert "multiples of 16" in report.kept["2"]
    layer = model[0]
    assert isinstance(layer, Fp8Linear) and layer.out_features == 32
    assert 0.005 < relative(layer(x), wanted) < 0.06


def test_the_engine_is_refused_or_says_what_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = Precision(torch.device("cpu"), torch.bfloat16, "as asked")
    with pytest.raises(
        RequestError, match=r"fp8 was asked for, but it runs on CUDA GPUs only \(scaled\): choose auto"
    ):
        choose_engine("fp8", cpu)
    monkeypatch.setattr("sanakit.pipeline.engine._refusal", lambda op, precision: None)
    reason = "the transformer's wide layers in fp8, steps and decoding recorded as CUDA graphs, as asked"
    assert choose_engine("fp8-graphs", CUDA).reason == reason
