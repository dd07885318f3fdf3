"""Every operator that kernels register with torch keeps torch's rules: schema, fakes, gradients, layouts.

So torch.compile may trace them and CUDA graphs may record them. Triton's run through its interpreter.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

import pytest
import torch
from torch import Tensor
from torch._library.custom_ops import CustomOpDef

pytest.importorskip("triton", reason="Triton has no wheel for this system, and its kernels never run here")

from torch._subclasses.fake_tensor import FakeTensorMode

from sanakit import kernels
from sanakit.kernels.linear import unsupported as unsupported_onednn
from sanakit.kernels.problem import Problem
from sanakit.kernels.quant_matmul.reference import quantise_rows

RULES = ("test_schema", "test_autograd_registration", "test_faketensor")
WITHOUT_ONEDNN = unsupported_onednn(Problem("depthwise_glu", "cpu", torch.float32))
OPAQUE = {"packed_linear", "int8_product"}
"""They read weights in oneDNN's layout, which opcheck can't look into; tests/adapt/test_compiled.py compiles them."""


def registered() -> dict[str, CustomOpDef]:
    """Name -> operator, of all files of `kernels`."""
    found: dict[str, CustomOpDef] = {}
    for info in pkgutil.walk_packages(kernels.__path__, "sanakit.kernels."):
        for value in vars(import_module(info.name)).values():
            if isinstance(value, CustomOpDef):
                found[value._name] = value
    return found


def arguments() -> dict[str, list[tuple[object, ...]]]:
    """Operator -> what it is called with, each once with and once without what may be left out."""
    q, s, z = torch.randn(1, 5, 2, 4), torch.randn(1, 2, 4, 4), torch.rand(1, 2, 4)
    x, m, weight, scales = torch.randn(2, 3, 8), torch.randn(1, 8), *quantise_rows(torch.randn(5, 4))
    r, w, bare = torch.rand(1, 5), torch.randn(8), (None, None)
    maps, filters, half = last(torch.randn(1, 6, 2, 3)), torch.randn(9, 6), last(torch.randn(1, 3, 2, 3))
    taps, bias = torch.randn(6, 1, 3, 3), torch.randn(6)
    ones = torch.ones(1, 5, dtype=torch.bool)
    return {
        "token_rstd": [(q, 1e-5)],
        "attention_kv_state": [(q, q, None, *bare), (q, q, ones, r, w)],
        "attention_output": [(q, s, z, 1e-15, *bare), (q, s, z, 1e-15, r, w)],
        "attention_kv_state_backward": [(s, z, q, q, None, *bare), (s, z, q, q, ones, r, w)],
        "attention_output_backward": [(q, q, s, z, 1e-15, *bare), (q, q, s, z, 1e-15, r, w)],
        "modulated_norm": [(x, m, m, 1e-6)],
        "modulated_norm_backward": [(x, x, m, 1e-6)],
        "add_norm_modulate": [(x, x, m, m, m, 1e-6), (x, x, None, m, m, 1e-6)],
        "add_norm_modulate_backward": [
            (x, x, x, x, m, m, 1e-6),
            (x, x, x, None, None, m, 1e-6),
        ],  # fmt: skip
        "add_norm_modulate_quant": [(x, x, m, m, m, 1e-6), (x, None, None, m, m, 1e-6)],
        "int8_matmul_gpu": [(torch.randn(3, 4), weight, scales, None, "none")],
        "int8_matmul_quantised": [
            (weight, torch.rand(5), weight, scales, torch.randn(5), "none", torch.bfloat16)
        ],
        "gated_depthwise": [(maps, filters, bias), (maps, filters, None)],
        "gated_depthwise_backward": [(half, maps, filters, bias)],
        "rms_norm": [(maps, None, bias, bias, 1e-5), (maps, maps, bias, None, 1e-5)],
        "depthwise": [(maps, taps, bias), (maps, taps, None)],
        "depthwise_backward": [(maps, maps, taps)],
        "depthwise_silu": [] if WITHOUT_ONEDNN else [(maps, taps, bias)],
    }


def test_every_operator_keeps_torchs_rules() -> None:
    operators, given = registered(), arguments()
    assert set(operators) == set(given) | OPAQUE
    for name in given:
        for call in given[name]:
            torch.library.opcheck(operators[name], call, test_utils=RULES)


def test_operators_are_shaped_on_a_gpu_that_is_not_there(triton_everywhere: None) -> None:
    """Fake tensors on "cuda" pass through what a block calls; the kernels themselves are never reached."""
    with FakeTensorMode():
        x, m, norm = (torch.empty(size, device="cuda") for size in ((2, 6, 32), (1, 1, 32), 32))
        total, h = kernels.add_norm_modulate(x, x, m, m, m)
        heads = h.unflatten(-1, (4, 8))
        looked = kernels.linear_attention(heads, heads, heads, norm=kernels.QKNorm(norm, norm, 1e-5))
        rounded = kernels.add_norm_modulate_quant(x, None, None, m, m)[1]
        weight, scales = torch.empty(5, 32, dtype=torch.int8, device="cuda"), torch.empty(5, device="cuda")
        product = kernels.int8_matmul(rounded, weight, scales, None)
    assert isinstance(rounded, kernels.QuantTokens) and rounded.scales.shape == (2, 6)
    assert (total.shape, looked.shape, product.shape) == ((2, 6, 32), (2, 6, 4, 8), (2, 6, 5))
    assert looked.device.type == product.device.type == "cuda"


def last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
