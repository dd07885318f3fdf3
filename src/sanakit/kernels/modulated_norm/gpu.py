"""LayerNorm and modulation as an operator of torch, with gradients; see `triton.py`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sanakit.kernels import gpu
from sanakit.kernels.gpu import Later
from sanakit.kernels.problem import Problem

kernels = Later("sanakit.kernels.modulated_norm.triton")


def refuses(problem: Problem) -> str | None:
    """Why this row does not run a problem; None where it does."""
    if problem.fact("per_token"):
        return "needs one modulation for all tokens of a sample"
    return gpu.refuses(problem)


def modulated_norm(x: Tensor, shift: Tensor, scale: Tensor, eps: float = 1e-6) -> Tensor:
    """As the reference, with one modulation for all tokens of a sample: [B, N, D], [B or 1, 1, D] -> [B, N, D]."""
    out: Tensor = normal_modulated(x.contiguous(), shift.flatten(1), scale.flatten(1), eps)
    return out


@torch.library.custom_op("sanakit::normal_modulated", mutates_args=())
def normal_modulated(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    """x [B, N, D], shift and scale [B or 1, D] -> [B, N, D]."""
    return kernels.forward(x, shift, scale, eps)


@torch.library.custom_op("sanakit::normal_modulated_backward", mutates_args=())
def normal_modulated_backward(
    grad: Tensor, x: Tensor, scale: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x [B, N, D], and of shift and scale, each [B, D] in float32."""
    return kernels.backward(grad.contiguous(), x, scale, eps)


@normal_modulated.register_fake
def _(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    return torch.empty_like(x)


@normal_modulated_backward.register_fake
def _(grad: Tensor, x: Tensor, scale: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    size = (len(x), x.shape[-1])
    return torch.empty_like(x), x.new_empty(size, dtype=torch.float32), x.new_empty(size, dtype=torch.float32)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, float], output: Tensor) -> None:
    x, shift, scale, ctx.eps = inputs
    ctx.shift_size, ctx.shift_dtype = shift.shape, shift.dtype
    ctx.save_for_backward(x, scale)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
    x, scale = ctx.saved_tensors
    into_x, into_shift, into_scale = normal_modulated_backward(grad, x, scale, ctx.eps)
    shift = into_shift.sum_to_size(ctx.shift_size).to(ctx.shift_dtype)
    return into_x, shift, into_scale.sum_to_size(scale.shape).to(scale.dtype), None


normal_modulated.register_autograd(_backward, setup_context=_keep)
