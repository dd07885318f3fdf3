"""LayerNorm and modulation, with the sum before and the rounding after them, as operators of torch; see `triton.py`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sanakit.kernels import gpu
from sanakit.kernels.gpu import Later
from sanakit.kernels.int8_matmul.tokens import QuantTokens
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


def add_norm_modulate(
    x: Tensor, branch: Tensor | None, gate: Tensor | None, shift: Tensor, scale: Tensor, eps: float,
    rounds: bool = False,
) -> tuple[Tensor, Tensor | QuantTokens]:  # fmt: skip
    """As the reference, with gate, shift and scale [B or 1, 1, D]. rounds: for an int8 product, without a gradient."""
    if branch is not None:
        x, branch = x.to(_summed(x, branch, gate)), branch.contiguous()
    x, gate = x.contiguous(), None if gate is None else gate.flatten(1)
    shift, scale = shift.flatten(1), scale.flatten(1)
    if rounds:
        total, values, steps = normal_rounded(x, branch, gate, shift, scale, eps)
        return x if branch is None else total, QuantTokens(values, steps, x.dtype)
    found: tuple[Tensor, Tensor] = residual_modulated(x, branch, gate, shift, scale, eps)
    return found


def _summed(x: Tensor, branch: Tensor, gate: Tensor | None) -> torch.dtype:
    """The dtype that torch gives x + gate * branch: under autocast branches are narrower than the residual."""
    wide = torch.result_type(x, branch)
    return wide if gate is None else torch.promote_types(wide, gate.dtype)


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


@torch.library.custom_op("sanakit::normal_rounded", mutates_args=())
def normal_rounded(
    x: Tensor, branch: Tensor | None, gate: Tensor | None, shift: Tensor, scale: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The sum [B, N, D], empty without a branch, and its norm as int8 [B, N, D] with steps [B, N]."""
    return kernels.rounded(x, branch, gate, shift, scale, eps)


@torch.library.custom_op("sanakit::residual_modulated", mutates_args=())
def residual_modulated(
    x: Tensor, branch: Tensor, gate: Tensor | None, shift: Tensor, scale: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """x and branch [B, N, D], gate, shift and scale [B or 1, D] -> the sum and its norm [B, N, D]."""
    return kernels.residual(x, branch, gate, shift, scale, eps)


@torch.library.custom_op("sanakit::residual_modulated_backward", mutates_args=())
def residual_modulated_backward(
    grad: Tensor, onto: Tensor, total: Tensor, branch: Tensor | None, gate: Tensor | None, scale: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of x, branch, gate, shift, scale; without a gate, branch has that of x and both are empty."""
    grad, onto = grad.contiguous(), onto.contiguous()
    if branch is not None and gate is not None:
        return kernels.gated_backward(grad, onto, total, branch, gate, scale, eps)
    into_x, into_shift, into_scale = kernels.backward(grad, total, scale, eps, onto)
    return into_x, total.new_empty(0), into_shift.new_empty(0), into_shift, into_scale


@normal_rounded.register_fake
def _(
    x: Tensor, branch: Tensor | None, gate: Tensor | None, shift: Tensor, scale: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    total = x.new_empty(0) if branch is None else torch.empty_like(x)
    return total, torch.empty_like(x, dtype=torch.int8), x.new_empty(x.shape[:2], dtype=torch.float32)


@residual_modulated.register_fake
def _(
    x: Tensor, branch: Tensor, gate: Tensor | None, shift: Tensor, scale: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(x)


@residual_modulated_backward.register_fake
def _(
    grad: Tensor, onto: Tensor, total: Tensor, branch: Tensor | None, gate: Tensor | None, scale: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    sums = [
        total.new_empty(n, dtype=torch.float32)
        for n in ((0,) if gate is None else _sums(total), _sums(total), _sums(total))
    ]
    into_branch = total.new_empty(0) if gate is None else torch.empty_like(total)
    return torch.empty_like(total), into_branch, sums[0], sums[1], sums[2]


def _sums(total: Tensor) -> tuple[int, int]:
    return len(total), total.shape[-1]


def _keep_residual(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, branch, gate, shift, scale, ctx.eps = inputs
    ctx.shift_size, ctx.shift_dtype, ctx.branch_dtype = shift.shape, shift.dtype, branch.dtype
    ctx.save_for_backward(output[0], None if gate is None else branch, gate, scale)


def _backward_residual(ctx: Any, onto: Tensor, grad: Tensor) -> tuple[Tensor | None, ...]:
    total, branch, gate, scale = ctx.saved_tensors
    into_x, into_branch, into_gate, into_shift, into_scale = residual_modulated_backward(
        grad, onto, total, branch, gate, scale, ctx.eps
    )
    gate_grad = None if gate is None else into_gate.sum_to_size(gate.shape).to(gate.dtype)
    shift = into_shift.sum_to_size(ctx.shift_size).to(ctx.shift_dtype)
    scales = into_scale.sum_to_size(scale.shape).to(scale.dtype)
    branch_grad = (into_x if gate is None else into_branch).to(ctx.branch_dtype)
    return into_x, branch_grad, gate_grad, shift, scales, None


residual_modulated.register_autograd(_backward_residual, setup_context=_keep_residual)
