"""Products in 8 bits on GPUs: int8 as operators of torch with the gradient of the reference (see `triton.py`), and fp8.

fp8 is torch's scaled matmul, the chip's own, with both scales applied to float32 sums.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sanakit.kernels.gpu import LazyModule, unsupported, unsupported_chip
from sanakit.kernels.linear import Act
from sanakit.kernels.problem import Problem, needs_grad
from sanakit.kernels.quant_matmul.reference import QuantTokens, quantise_rows_fp8

__all__ = ["fp8_matmul", "int8_matmul", "unsupported", "unsupported_fp8"]

kernels = LazyModule("sanakit.kernels.quant_matmul.triton")

OLDEST_FP8 = (9, 0)
"""The oldest compute capability whose scaled matmul takes a scale per row (Hopper)."""


def int8_matmul(
    x: Tensor | QuantTokens, weight: Tensor, scales: Tensor, bias: Tensor | None, act: Act = "none"
) -> Tensor:
    """As the reference: [..., K], int8 [O, K], [O], [O] -> [..., O]."""
    if isinstance(x, QuantTokens):
        values, per_token = x.values.flatten(0, -2), x.scales.flatten()
        done: Tensor = int8_matmul_quantised(values, per_token, weight, scales, bias, act, x.dtype)
        return done.reshape(*x.shape[:-1], len(weight))
    rows = x.reshape(-1, x.shape[-1])
    if needs_grad(x, bias):
        product: Tensor = int8_matmul_gpu(rows, weight, scales, bias, "none")
        product = F.silu(product) if act == "silu" else product
    else:
        product = int8_matmul_gpu(rows, weight, scales, bias, act)
    return product.reshape(*x.shape[:-1], len(weight))


@torch.library.custom_op("sanakit::int8_matmul_quantised", mutates_args=())
def int8_matmul_quantised(
    values: Tensor, per_token: Tensor, weight: Tensor, scales: Tensor, bias: Tensor | None, act: str,
    dtype: torch.dtype,
) -> Tensor:  # fmt: skip
    """int8 [N, K] with scales [N], int8 weight [O, K] with scales [O], bias [O] -> [N, O] in `dtype`."""
    return kernels.multiply(values, per_token, weight, scales, bias, act, dtype)


@int8_matmul_quantised.register_fake
def _(
    values: Tensor, per_token: Tensor, weight: Tensor, scales: Tensor, bias: Tensor | None, act: str,
    dtype: torch.dtype,
) -> Tensor:  # fmt: skip
    return values.new_empty(len(values), len(weight), dtype=dtype)


@torch.library.custom_op("sanakit::int8_matmul_gpu", mutates_args=())
def int8_matmul_gpu(x: Tensor, weight: Tensor, scales: Tensor, bias: Tensor | None, act: str) -> Tensor:
    """x [N, K], int8 weight [O, K], scales [O], bias [O] -> [N, O]; only without `act` it has a gradient."""
    values, per_token = kernels.quantise(x.contiguous())
    return kernels.multiply(values, per_token, weight, scales, bias, act, x.dtype)


@int8_matmul_gpu.register_fake
def _(x: Tensor, weight: Tensor, scales: Tensor, bias: Tensor | None, act: str) -> Tensor:
    return x.new_empty(len(x), len(weight))


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, Tensor | None, str], output: Tensor) -> None:
    _, weight, scales, bias, _ = inputs
    ctx.has_bias = bias is not None
    ctx.save_for_backward(weight, scales)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, Tensor | None, None]:
    weight, scales = ctx.saved_tensors
    dx = ((grad * scales).to(grad.dtype)) @ weight.to(grad.dtype)
    return dx, None, None, grad.sum(0) if ctx.has_bias else None, None


int8_matmul_gpu.register_autograd(_backward, setup_context=_save)


def unsupported_fp8(problem: Problem) -> str | None:
    """Return why torch's scaled matmul does not run a problem, or None."""
    if problem.device != "cuda":
        return "runs on CUDA GPUs only"
    reason = unsupported_chip(OLDEST_FP8)
    if reason is not None:
        return reason
    return None if problem.dtype == torch.bfloat16 else "gives bf16 only"


def fp8_matmul(x: Tensor, weight: Tensor, scales: Tensor, bias: Tensor | None, act: Act = "none") -> Tensor:
    """As the reference, for bf16 tokens and without a gradient: [..., K], e4m3 [O, K], [O], [O] -> [..., O]."""
    values, per_token = quantise_rows_fp8(x.reshape(-1, x.shape[-1]))
    out: Tensor = torch._scaled_mm(
        values, weight.t(), scale_a=per_token[:, None], scale_b=scales[None, :], bias=bias, out_dtype=x.dtype
    )
    out = F.silu(out) if act == "silu" else out
    return out.reshape(*x.shape[:-1], len(weight))
