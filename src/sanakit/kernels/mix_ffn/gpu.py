"""The middle of the Mix-FFN as an operator of torch, with gradients; see `triton.py`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sanakit.kernels.gpu import LazyModule, unsupported

__all__ = ["gated_depthwise", "unsupported"]

kernels = LazyModule("sanakit.kernels.mix_ffn.triton")

_LAST = torch.channels_last


def gated_depthwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """As the reference: [B, 2F, h, w], filters [2F, 1, 3, 3], [2F] -> [B, F, h, w], channels last."""
    filters = weight.flatten(1).t().contiguous()
    out: Tensor = gated_depthwise_op(x.contiguous(memory_format=_LAST), filters, bias)
    return out


@torch.library.custom_op("sanakit::gated_depthwise", mutates_args=())
def gated_depthwise_op(x: Tensor, filters: Tensor, bias: Tensor | None) -> Tensor:
    """x [B, 2F, h, w] channels last, filters [9, 2F], bias [2F] -> [B, F, h, w] channels last."""
    return kernels.forward(x, filters, bias)


@torch.library.custom_op("sanakit::gated_depthwise_backward", mutates_args=())
def gated_depthwise_backward(
    grad: Tensor, x: Tensor, filters: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, filters and bias."""
    dmixed = kernels.backward_to_conv(grad.contiguous(memory_format=_LAST), x, filters, bias)
    return kernels.backward_to_inputs(dmixed, x, filters)


@gated_depthwise_op.register_fake
def _(x: Tensor, filters: Tensor, bias: Tensor | None) -> Tensor:
    batch, doubled, height, width = x.shape
    return x.new_empty(batch, doubled // 2, height, width).contiguous(memory_format=_LAST)


@gated_depthwise_backward.register_fake
def _(grad: Tensor, x: Tensor, filters: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x, memory_format=_LAST), torch.empty_like(filters), filters.new_empty(x.shape[1])


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    x, filters, bias = ctx.saved_tensors
    dx, dfilters, dbias = gated_depthwise_backward(grad, x, filters, bias)
    return dx, dfilters, None if bias is None else dbias


gated_depthwise_op.register_autograd(_backward, setup_context=_save)
