"""W8A8 products on CPUs through oneDNN: weights packed once, whole sums in int32, steps applied to the result.

In half precision the sums are rounded once before and once after the step of their row, a hundredth of the error that
int8 itself makes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sanakit.kernels.int8_matmul.reference import token_steps
from sanakit.kernels.linear.reference import Act
from sanakit.kernels.problem import Problem

_ROWS = 512


def refuses(problem: Problem) -> str | None:
    """Why oneDNN can't multiply, or would not be faster; None where it does."""
    if problem.device != "cpu":
        return "runs on CPUs only"
    if problem.fact("rounded"):
        return "rounds tokens itself"
    if not torch.backends.mkldnn.is_available():
        return "this torch was built without oneDNN"
    return None if torch.cpu._is_vnni_supported() else "this CPU has no int8 products (VNNI)"


def pack(weight: Tensor) -> Tensor:
    """int8 [O, K] -> the same in the layout that oneDNN multiplies (an opaque tensor)."""
    packed: Tensor = torch.ops.onednn.qlinear_prepack(weight, None)
    return packed


def int8_matmul(
    x: Tensor, weight: Tensor, steps: Tensor, bias: Tensor | None, act: Act, packed: Tensor
) -> Tensor:
    """As the reference, with the weight packed by `pack` as well."""
    rows = x.reshape(-1, x.shape[-1])
    if torch.is_grad_enabled() and (x.requires_grad or (bias is not None and bias.requires_grad)):
        product: Tensor = _Product.apply(rows, weight, steps, bias, packed)  # type: ignore[no-untyped-call]
        product = F.silu(product) if act == "silu" else product
    else:
        product = _product(rows, steps, bias, act, packed)
    return product.reshape(*x.shape[:-1], len(steps))


def _product(x: Tensor, steps: Tensor, bias: Tensor | None, act: Act, packed: Tensor) -> Tensor:
    """x [N, K] -> [N, O], some rows at a time, so that what is rounded and scaled is still in the cache."""
    out = torch.empty(len(x), len(steps), dtype=x.dtype)
    none, zero = torch.zeros(len(steps), dtype=torch.int32), x.new_zeros(1)
    for start in range(0, len(x), _ROWS):
        part, window = x[start : start + _ROWS], out[start : start + _ROWS]
        per_row = token_steps(part)[:, None]  # [n, 1]
        # A row with NaN or Inf has such a step, and whatever its values round to, its product is NaN.
        values = (part * per_row.reciprocal()).round_().to(torch.int8)
        sums = multiply(values, packed, steps, none, x.dtype)
        torch.addcmul(zero if bias is None else bias, sums, per_row.to(x.dtype), out=window)
        if act == "silu":
            F.silu(window, inplace=True)
    return out


def multiply(values: Tensor, packed: Tensor, steps: Tensor, zeros: Tensor, dtype: torch.dtype) -> Tensor:
    """int8 [N, K] times packed weights -> [N, O] in `dtype`, scaled by the steps [O] of the outputs."""
    out: Tensor = torch.ops.onednn.qlinear_pointwise(
        values, 1.0, 0, packed, steps, zeros, None, 1.0, 0, dtype, "none", [], ""
    )
    return out


class _Product(torch.autograd.Function):
    """x [N, K] -> [N, O]; backward as the reference."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        x: Tensor,
        weight: Tensor,
        steps: Tensor,
        bias: Tensor | None,
        packed: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(weight, steps)
        ctx.has_bias = bias is not None  # type: ignore[attr-defined]
        return _product(x, steps, bias, "none", packed)

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, grad: Tensor
    ) -> tuple[Tensor, None, None, Tensor | None, None]:
        weight, steps = ctx.saved_tensors  # type: ignore[attr-defined]
        into_x = (grad.float() * steps) @ weight.float()
        into_bias = grad.float().sum(0) if ctx.has_bias else None  # type: ignore[attr-defined]
        return into_x.to(grad.dtype), None, None, into_bias, None
