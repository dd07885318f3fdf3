"""What W8A8 rows on CPUs share: tokens are rounded and results scaled around a product of whole numbers."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sanakit.kernels.int8_matmul.reference import token_steps
from sanakit.kernels.linear.reference import Act

Scaled = Callable[[Tensor], Tensor]
"""Whole numbers [n, K] -> their products with the weights [n, O], times the steps of the outputs."""

_ROWS = 512


def product(
    x: Tensor, weight: Tensor, steps: Tensor, bias: Tensor | None, act: Act, scaled: Scaled, shift: int
) -> Tensor:
    """As the reference. shift: what is added to whole numbers before `scaled` gets them; with one they are uint8."""
    rows = x.reshape(-1, x.shape[-1])
    if torch.is_grad_enabled() and (x.requires_grad or (bias is not None and bias.requires_grad)):
        out: Tensor = _Product.apply(rows, weight, steps, bias, scaled, shift)  # type: ignore[no-untyped-call]
        out = F.silu(out) if act == "silu" else out
    else:
        out = _forward(rows, steps, bias, act, scaled, shift)
    return out.reshape(*x.shape[:-1], len(steps))


def _forward(x: Tensor, steps: Tensor, bias: Tensor | None, act: Act, scaled: Scaled, shift: int) -> Tensor:
    """x [N, K] -> [N, O], some rows at a time, so that what is rounded and scaled is still in the cache."""
    out, zero = torch.empty(len(x), len(steps), dtype=x.dtype), x.new_zeros(1)
    for start in range(0, len(x), _ROWS):
        part, window = x[start : start + _ROWS], out[start : start + _ROWS]
        per_row = token_steps(part)[:, None]  # [n, 1]
        # A row with NaN or Inf has such a step, and whatever its values round to, its product is NaN.
        sums = scaled(whole(part * per_row.reciprocal(), shift))
        torch.addcmul(zero if bias is None else bias, sums, per_row.to(x.dtype), out=window)
        if act == "silu":
            F.silu(window, inplace=True)
    return out


def whole(values: Tensor, shift: int) -> Tensor:
    """Rounded to int8, or shifted to uint8; overwrites `values`."""
    return (values.round_().add_(shift) if shift else values.round_()).to(
        torch.uint8 if shift else torch.int8
    )


class _Product(torch.autograd.Function):
    """x [N, K] -> [N, O]; backward as the reference."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        x: Tensor,
        weight: Tensor,
        steps: Tensor,
        bias: Tensor | None,
        scaled: Scaled,
        shift: int,
    ) -> Tensor:
        ctx.save_for_backward(weight, steps)
        ctx.has_bias = bias is not None  # type: ignore[attr-defined]
        return _forward(x, steps, bias, "none", scaled, shift)

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, grad: Tensor
    ) -> tuple[Tensor, None, None, Tensor | None, None, None]:
        weight, steps = ctx.saved_tensors  # type: ignore[attr-defined]
        into_x = (grad.float() * steps) @ weight.float()
        into_bias = grad.float().sum(0) if ctx.has_bias else None  # type: ignore[attr-defined]
        return into_x.to(grad.dtype), None, None, into_bias, None, None
