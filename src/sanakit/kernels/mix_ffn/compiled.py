"""The middle of the Mix-FFN under torch.compile on a CPU: its depthwise convolutions as operators of one layout.

Left to itself the compiler hands the convolution's backward pass channels-first copies of the block's widest
tensors, on which oneDNN is slower, too. Channels last in and out leave nothing to copy.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sanakit.kernels.mix_ffn import onednn

_LAST = torch.channels_last


def gated_depthwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """As the reference: [B, 2F, h, w] -> [B, F, h, w]."""
    mixed = _depthwise(F.silu(x).contiguous(memory_format=_LAST), weight, bias)
    value, gate = mixed.chunk(2, dim=1)
    return value * F.silu(gate)


def depthwise_glu(value: Tensor, gate: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """As the reference: [B, F, h, w] each -> [B, F, h, w]. The compiler joins the product with what follows."""
    half = value.shape[1]
    biases = (None, None) if bias is None else (bias[:half], bias[half:])
    opened: Tensor = activated_depthwise(gate, weight[half:], biases[1])
    mixed: Tensor = depthwise(value, weight[:half], biases[0])
    return mixed * opened


activated_depthwise = torch.library.custom_op(
    "sanakit::activated_depthwise", onednn.activated_depthwise, mutates_args=()
)
"""`depthwise`, then SiLU inside the convolution; for drawing, without a gradient."""


@activated_depthwise.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.empty_like(x, memory_format=_LAST)


def _depthwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The operator in the dtype of autocast, which does not reach into operators of others."""
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    out: Tensor = depthwise(x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))
    return out


@torch.library.custom_op("sanakit::depthwise", mutates_args=())
def depthwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Depthwise 3x3 with zeros around: x [B, C, h, w], weight [C, 1, 3, 3], bias [C] or None -> [B, C, h, w]."""
    return F.conv2d(x, weight, bias, padding=1, groups=len(weight)).contiguous(memory_format=_LAST)


@torch.library.custom_op("sanakit::depthwise_backward", mutates_args=())
def depthwise_backward(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias, from that of the output [B, C, h, w]."""
    grad, ones = grad.contiguous(memory_format=_LAST), [1, 1]
    into_x, into_weight, into_bias = torch.ops.aten.convolution_backward(
        grad, x, weight, [len(weight)], ones, ones, ones, False, [0, 0], len(weight), [True, True, True]
    )
    return into_x.contiguous(memory_format=_LAST), into_weight.contiguous(), into_bias


@depthwise.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.empty_like(x, memory_format=_LAST)


@depthwise_backward.register_fake
def _(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x, memory_format=_LAST), torch.empty_like(weight), weight.new_empty(len(weight))


def _save(
    ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor
) -> None:
    x, weight, bias = inputs
    ctx.save_for_backward(x, weight)
    ctx.has_bias = bias is not None  # type: ignore[attr-defined]


def _backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    x, weight = ctx.saved_tensors  # type: ignore[attr-defined]
    into_x, into_weight, into_bias = depthwise_backward(grad, x, weight)
    return into_x, into_weight, into_bias if ctx.has_bias else None  # type: ignore[attr-defined]


depthwise.register_autograd(_backward, setup_context=_save)
