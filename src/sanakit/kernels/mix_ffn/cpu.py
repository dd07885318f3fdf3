"""The middle of the Mix-FFN on CPUs: through oneDNN, and as operators of one layout under torch.compile.

oneDNN computes the gate's SiLU and the product inside the two convolutions. Left to itself, torch.compile hands the
convolution's backward pass channels-first copies of the block's widest tensors, on which oneDNN is slower, too: with
channels last in and out of an operator there is nothing to copy.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sanakit.kernels.problem import Problem

_LAST = torch.channels_last
_ONES = [1, 1]  # stride, padding and dilation of a 3x3 that keeps the size


def unsupported_eager(problem: Problem) -> str | None:
    """Return why `gated_depthwise` does not run a problem, or None: eager torch copies nothing to begin with."""
    if problem.device != "cpu":
        return "runs on CPUs only"
    return (
        None if problem.fact("compiling") else "saves the copies of a compiler, and nothing is compiled here"
    )


def gated_depthwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """As the reference: [B, 2F, h, w] -> [B, F, h, w]."""
    mixed = _depthwise(F.silu(x).contiguous(memory_format=_LAST), weight, bias)
    value, gate = mixed.chunk(2, dim=1)
    return value * F.silu(gate)


def depthwise_glu(value: Tensor, gate: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """As the reference: [B, F, h, w] each -> [B, F, h, w], channels last."""
    half = value.shape[1]
    biases = (None, None) if bias is None else (bias[:half], bias[half:])
    opened = _convolve_silu(gate, weight[half:], biases[1])
    out: Tensor = torch.ops.mkldnn._convolution_pointwise.binary(
        value.contiguous(memory_format=_LAST), opened, weight[:half], biases[0], _ONES, _ONES, _ONES, half,
        "mul", None, None, [], None,
    )  # fmt: skip
    return out


def depthwise_glu_traced(value: Tensor, gate: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`depthwise_glu` for a compiler, which joins the product with what follows."""
    half = value.shape[1]
    biases = (None, None) if bias is None else (bias[:half], bias[half:])
    opened: Tensor = depthwise_silu(gate, weight[half:], biases[1])
    mixed: Tensor = depthwise(value, weight[:half], biases[0])
    return mixed * opened


def _convolve_silu(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Depthwise 3x3 and SiLU: x [B, C, h, w], weight [C, 1, 3, 3], bias [C] or None -> [B, C, h, w], channels last."""
    out: Tensor = torch.ops.mkldnn._convolution_pointwise(
        x.contiguous(memory_format=_LAST), weight, bias, _ONES, _ONES, _ONES, len(weight), "swish", [], ""
    )
    return out


depthwise_silu = torch.library.custom_op("sanakit::depthwise_silu", _convolve_silu, mutates_args=())
"""The same as one operator, without a gradient."""


@depthwise_silu.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.empty_like(x, memory_format=_LAST)


def _depthwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`depthwise` in the dtype of autocast, which does not reach into operators registered from outside torch."""
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    out: Tensor = depthwise(x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))
    return out


@torch.library.custom_op("sanakit::depthwise", mutates_args=())
def depthwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Depthwise 3x3, zero padding: x [B, C, h, w], weight [C, 1, 3, 3], bias [C] or None -> [B, C, h, w]."""
    return F.conv2d(x, weight, bias, padding=1, groups=len(weight)).contiguous(memory_format=_LAST)


@torch.library.custom_op("sanakit::depthwise_backward", mutates_args=())
def depthwise_backward(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias, from that of the output [B, C, h, w]."""
    dx, dweight, dbias = torch.ops.aten.convolution_backward(
        grad.contiguous(memory_format=_LAST), x, weight, [len(weight)], _ONES, _ONES, _ONES, False, [0, 0],
        len(weight), [True, True, True],
    )  # fmt: skip
    return dx.contiguous(memory_format=_LAST), dweight.contiguous(), dbias


@depthwise.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.empty_like(x, memory_format=_LAST)


@depthwise_backward.register_fake
def _(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x, memory_format=_LAST), torch.empty_like(weight), weight.new_empty(len(weight))


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
    x, weight, bias = inputs
    ctx.save_for_backward(x, weight)
    ctx.has_bias = bias is not None


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    x, weight = ctx.saved_tensors
    dx, dweight, dbias = depthwise_backward(grad, x, weight)
    return dx, dweight, dbias if ctx.has_bias else None


depthwise.register_autograd(_backward, setup_context=_save)
