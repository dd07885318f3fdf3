"""W8A8 products on CPUs through oneDNN: weights packed once, whole sums in int32, steps applied to the result."""

from __future__ import annotations

import torch
from torch import Tensor

from sanakit.kernels.int8_matmul.reference import quantise_rows
from sanakit.kernels.problem import Problem


def refuses(problem: Problem) -> str | None:
    """Why oneDNN can't multiply, or would not be faster; None where it does."""
    if problem.device != "cpu":
        return "runs on CPUs only"
    if not torch.backends.mkldnn.is_available():
        return "this torch was built without oneDNN"
    return None if torch.cpu._is_vnni_supported() else "this CPU has no int8 products (VNNI)"


def pack(weight: Tensor) -> Tensor:
    """int8 [O, K] -> the same in the layout that oneDNN multiplies (an opaque tensor)."""
    packed: Tensor = torch.ops.onednn.qlinear_prepack(weight, None)
    return packed


def int8_matmul(x: Tensor, weight: Tensor, steps: Tensor, bias: Tensor | None, packed: Tensor) -> Tensor:
    """As the reference, with the weight packed by `pack` as well."""
    product: Tensor = _Product.apply(x.reshape(-1, x.shape[-1]), weight, steps, bias, packed)  # type: ignore[no-untyped-call]
    return product.reshape(*x.shape[:-1], len(weight))


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
        values, per_row = quantise_rows(x)
        none = torch.zeros(len(weight), dtype=torch.int32)
        sums = torch.ops.onednn.qlinear_pointwise(
            values, 1.0, 0, packed, steps, none, None, 1.0, 0, torch.float32, "none", [], ""
        )
        scaled = sums.mul_(per_row[:, None])
        out: Tensor = (scaled if bias is None else scaled.add_(bias)).to(x.dtype)
        return out

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, grad: Tensor
    ) -> tuple[Tensor, None, None, Tensor | None, None]:
        weight, steps = ctx.saved_tensors  # type: ignore[attr-defined]
        into_x = (grad.float() * steps) @ weight.float()
        into_bias = grad.float().sum(0) if ctx.has_bias else None  # type: ignore[attr-defined]
        return into_x.to(grad.dtype), None, None, into_bias, None
