"""W8A8 products on GPUs as an operator of torch, with the gradient of the reference; see `triton.py`."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sanakit.kernels.gpu import Later, refuses
from sanakit.kernels.int8_matmul.tokens import QuantTokens
from sanakit.kernels.linear.reference import Act

__all__ = ["int8_matmul", "refuses"]

kernels = Later("sanakit.kernels.int8_matmul.triton")


def int8_matmul(
    x: Tensor | QuantTokens, weight: Tensor, steps: Tensor, bias: Tensor | None, act: Act = "none"
) -> Tensor:
    """As the reference: [..., K], int8 [O, K], [O], [O] -> [..., O]."""
    if isinstance(x, QuantTokens):
        values, per_token = x.values.flatten(0, -2), x.steps.flatten()
        done: Tensor = int8_rounded_product(values, per_token, weight, steps, bias, act, x.dtype)
        return done.reshape(*x.shape[:-1], len(weight))
    rows = x.reshape(-1, x.shape[-1])
    if torch.is_grad_enabled() and (x.requires_grad or (bias is not None and bias.requires_grad)):
        product: Tensor = int8_product_gpu(rows, weight, steps, bias, "none")
        product = F.silu(product) if act == "silu" else product
    else:
        product = int8_product_gpu(rows, weight, steps, bias, act)
    return product.reshape(*x.shape[:-1], len(weight))


@torch.library.custom_op("sanakit::int8_rounded_product", mutates_args=())
def int8_rounded_product(
    values: Tensor, per_token: Tensor, weight: Tensor, steps: Tensor, bias: Tensor | None, act: str,
    dtype: torch.dtype,
) -> Tensor:  # fmt: skip
    """int8 [N, K] with steps [N], int8 weight [O, K] with steps [O], bias [O] -> [N, O] in `dtype`."""
    return kernels.multiply(values, per_token, weight, steps, bias, act, dtype)


@int8_rounded_product.register_fake
def _(
    values: Tensor, per_token: Tensor, weight: Tensor, steps: Tensor, bias: Tensor | None, act: str,
    dtype: torch.dtype,
) -> Tensor:  # fmt: skip
    return values.new_empty(len(values), len(weight), dtype=dtype)


@torch.library.custom_op("sanakit::int8_product_gpu", mutates_args=())
def int8_product_gpu(x: Tensor, weight: Tensor, steps: Tensor, bias: Tensor | None, act: str) -> Tensor:
    """x [N, K], int8 weight [O, K], steps [O], bias [O] -> [N, O]; only without `act` it has a gradient."""
    values, per_token = kernels.quantise(x.contiguous())
    return kernels.multiply(values, per_token, weight, steps, bias, act, x.dtype)


@int8_product_gpu.register_fake
def _(x: Tensor, weight: Tensor, steps: Tensor, bias: Tensor | None, act: str) -> Tensor:
    return x.new_empty(len(x), len(weight))


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, Tensor | None, str], output: Tensor) -> None:
    _, weight, steps, bias, _ = inputs
    ctx.has_bias = bias is not None
    ctx.save_for_backward(weight, steps)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, Tensor | None, None]:
    weight, steps = ctx.saved_tensors
    into_x = ((grad * steps).to(grad.dtype)) @ weight.to(grad.dtype)
    return into_x, None, None, grad.sum(0) if ctx.has_bias else None, None


int8_product_gpu.register_autograd(_backward, setup_context=_keep)
