"""LayerNorm and modulation, with the sum before and the quantisation after them, as operators of torch.

See `triton.py` for the kernels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sanakit.kernels import gpu
from sanakit.kernels.gpu import LazyModule
from sanakit.kernels.problem import Problem, needs_grad
from sanakit.kernels.quant_matmul.reference import QuantTokens

kernels = LazyModule("sanakit.kernels.modulated_norm.triton")


def unsupported(problem: Problem) -> str | None:
    """Return why this row does not run a problem, or None."""
    if problem.fact("per_token"):
        return "needs one modulation for all tokens of a sample"
    return gpu.unsupported(problem)


def modulated_norm(x: Tensor, shift: Tensor, scale: Tensor, eps: float = 1e-6) -> Tensor:
    """As the reference, with one modulation for all tokens of a sample: [B, N, D], [B or 1, 1, D] -> [B, N, D]."""
    out: Tensor = modulated_norm_op(x.contiguous(), shift.flatten(1), scale.flatten(1), eps)
    return out


def add_norm_modulate(
    x: Tensor, branch: Tensor | None, gate: Tensor | None, shift: Tensor, scale: Tensor, eps: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """As the reference, with gate, shift and scale [B or 1, 1, D]."""
    if branch is None:
        return x, modulated_norm(x, shift, scale, eps)
    x, branch, gate = _dense(x, branch, gate)
    found: tuple[Tensor, Tensor] = add_norm_modulate_op(
        x, branch, gate, shift.flatten(1), scale.flatten(1), eps
    )
    return found


def add_norm_modulate_quant(
    x: Tensor, branch: Tensor | None, gate: Tensor | None, shift: Tensor, scale: Tensor, eps: float = 1e-6
) -> tuple[Tensor, Tensor | QuantTokens]:
    """As the reference, the norm quantised on its way; if a gradient is asked for, it is left as it is."""
    if needs_grad(x, branch, gate, shift, scale):
        return add_norm_modulate(x, branch, gate, shift, scale, eps)
    x, branch, gate = _dense(x, branch, gate)
    total, values, scales = add_norm_modulate_quant_op(
        x, branch, gate, shift.flatten(1), scale.flatten(1), eps
    )
    return x if branch is None else total, QuantTokens(values, scales, x.dtype)


def _dense(
    x: Tensor, branch: Tensor | None, gate: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return the parts of a sum as the kernels read them, x in the dtype that torch gives x + gate * branch.

    Under autocast branches are narrower than the residual.
    """
    if branch is not None:
        wide = torch.result_type(x, branch)
        x = x.to(wide if gate is None else torch.promote_types(wide, gate.dtype))
        branch = branch.contiguous()
    return x.contiguous(), branch, None if gate is None else gate.flatten(1)


@torch.library.custom_op("sanakit::modulated_norm", mutates_args=())
def modulated_norm_op(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    """x [B, N, D], shift and scale [B or 1, D] -> [B, N, D]."""
    return kernels.forward(x, shift, scale, eps)


@torch.library.custom_op("sanakit::modulated_norm_backward", mutates_args=())
def modulated_norm_backward(
    grad: Tensor, x: Tensor, scale: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x [B, N, D], and of shift and scale, each [B, D] in float32."""
    return kernels.backward(grad.contiguous(), x, scale, eps)


@modulated_norm_op.register_fake
def _(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    return torch.empty_like(x)


@modulated_norm_backward.register_fake
def _(grad: Tensor, x: Tensor, scale: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    size = (len(x), x.shape[-1])
    return torch.empty_like(x), x.new_empty(size, dtype=torch.float32), x.new_empty(size, dtype=torch.float32)


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, float], output: Tensor) -> None:
    x, shift, scale, ctx.eps = inputs
    ctx.shift_size, ctx.shift_dtype = shift.shape, shift.dtype
    ctx.save_for_backward(x, scale)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
    x, scale = ctx.saved_tensors
    dx, dshift, dscale = modulated_norm_backward(grad, x, scale, ctx.eps)
    shift = dshift.sum_to_size(ctx.shift_size).to(ctx.shift_dtype)
    return dx, shift, dscale.sum_to_size(scale.shape).to(scale.dtype), None


modulated_norm_op.register_autograd(_backward, setup_context=_save)


@torch.library.custom_op("sanakit::add_norm_modulate_quant", mutates_args=())
def add_norm_modulate_quant_op(
    x: Tensor, branch: Tensor | None, gate: Tensor | None, shift: Tensor, scale: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sum [B, N, D], empty without a branch, and its norm as int8 [B, N, D] with scales [B, N]."""
    return kernels.forward_sum_quant(x, branch, gate, shift, scale, eps)


@torch.library.custom_op("sanakit::add_norm_modulate", mutates_args=())
def add_norm_modulate_op(
    x: Tensor, branch: Tensor, gate: Tensor | None, shift: Tensor, scale: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """x and branch [B, N, D], gate, shift and scale [B or 1, D] -> the sum and its norm [B, N, D]."""
    return kernels.forward_sum(x, branch, gate, shift, scale, eps)


@torch.library.custom_op("sanakit::add_norm_modulate_backward", mutates_args=())
def add_norm_modulate_backward(
    grad: Tensor, dresidual: Tensor, total: Tensor, branch: Tensor | None, gate: Tensor | None, scale: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of x, branch, gate, shift, scale; without a gate, branch has that of x and both are empty."""
    grad, dresidual = grad.contiguous(), dresidual.contiguous()
    if branch is not None and gate is not None:
        return kernels.backward_gated(grad, dresidual, total, branch, gate, scale, eps)
    dx, dshift, dscale = kernels.backward(grad, total, scale, eps, dresidual)
    return dx, total.new_empty(0), dshift.new_empty(0), dshift, dscale


@add_norm_modulate_quant_op.register_fake
def _(
    x: Tensor, branch: Tensor | None, gate: Tensor | None, shift: Tensor, scale: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    total = x.new_empty(0) if branch is None else torch.empty_like(x)
    return total, torch.empty_like(x, dtype=torch.int8), x.new_empty(x.shape[:2], dtype=torch.float32)


@add_norm_modulate_op.register_fake
def _(
    x: Tensor, branch: Tensor, gate: Tensor | None, shift: Tensor, scale: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(x)


@add_norm_modulate_backward.register_fake
def _(
    grad: Tensor, dresidual: Tensor, total: Tensor, branch: Tensor | None, gate: Tensor | None, scale: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    sums = [
        total.new_empty(n, dtype=torch.float32)
        for n in ((0,) if gate is None else _sums(total), _sums(total), _sums(total))
    ]
    dbranch = total.new_empty(0) if gate is None else torch.empty_like(total)
    return torch.empty_like(total), dbranch, sums[0], sums[1], sums[2]


def _sums(total: Tensor) -> tuple[int, int]:
    return len(total), total.shape[-1]


def _save_sum(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, branch, gate, shift, scale, ctx.eps = inputs
    ctx.shift_size, ctx.shift_dtype, ctx.branch_dtype = shift.shape, shift.dtype, branch.dtype
    ctx.save_for_backward(output[0], None if gate is None else branch, gate, scale)


def _backward_sum(ctx: Any, dresidual: Tensor, grad: Tensor) -> tuple[Tensor | None, ...]:
    total, branch, gate, scale = ctx.saved_tensors
    dx, dbranch, dgate, dshift, dscale = add_norm_modulate_backward(
        grad, dresidual, total, branch, gate, scale, ctx.eps
    )
    gate_grad = None if gate is None else dgate.sum_to_size(gate.shape).to(gate.dtype)
    shift = dshift.sum_to_size(ctx.shift_size).to(ctx.shift_dtype)
    scales = dscale.sum_to_size(scale.shape).to(scale.dtype)
    branch_grad = (dx if gate is None else dbranch).to(ctx.branch_dtype)
    return dx, branch_grad, gate_grad, shift, scales, None


add_norm_modulate_op.register_autograd(_backward_sum, setup_context=_save_sum)
