"""W8A8 products on CPUs: through oneDNN's int8 units, or by float32 on chips without them.

oneDNN: weights are packed once, whole sums are taken in int32, scales applied to the result. AMX multiplies signed
activations by signed weights. AVX512-VNNI and AVX-VNNI multiply unsigned by signed ones, so there activations are
shifted by 128, and oneDNN takes 128 times the sums of the weights away again, exactly, in int32. With signed ones it
would walk through its reference loop, hundreds of times slower. Older units add two products of int8 in int16, which
overflows: neither row runs there. That each is right and fast on the machine at hand is tried before it is chosen (see
`proof`). In half precision the sums are rounded once before and once after the scale of their token, a hundredth of the
error that int8 itself makes.

float32: weights stay in int8 between products, and whole numbers are multiplied as float32, at its speed. Sums of whole
numbers are exact up to 2**24 and rounded as float32 above.

Forms named `..._traced` are what a compiler is given: it fuses rounding and scales with the layers around the product,
which row by row in eager torch take as long as the product.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sanakit.base.chip import Chip, this_chip
from sanakit.kernels.linear import Act, unsupported_chip
from sanakit.kernels.problem import Problem, needs_grad
from sanakit.kernels.quant_matmul.reference import token_scales

SHIFT = 128
"""Makes values of -127 to 127 unsigned."""

_ROWS = 512
"""Tokens that are quantised, multiplied and scaled at a time, so that they are still in the cache."""

Scaled = Callable[[Tensor], Tensor]
"""Whole numbers [n, K] -> their products with the weights [n, O], times the scales of the outputs."""


def unsupported_signed(problem: Problem) -> str | None:
    """Return why oneDNN can't multiply signed activations, or None."""
    chip = this_chip()
    reason = _unsupported(problem, chip)
    if reason is None and not chip.amx_int8:
        return f"multiplies signed activations by AMX alone, and this CPU has {chip.int8_unit} or may use no more"
    return reason


def unsupported_shifted(problem: Problem) -> str | None:
    """Return why oneDNN can't multiply shifted activations, or None."""
    return _unsupported(problem, this_chip())


def unsupported_float32(problem: Problem) -> str | None:
    """Return why the row by float32 does not run a problem, or None."""
    if problem.device != "cpu":
        return "runs on CPUs only"
    if problem.fact("quantised"):
        return "rounds tokens itself"
    return _no_compiled_gradient(problem)


def _unsupported(problem: Problem, chip: Chip) -> str | None:
    if problem.device != "cpu":
        return "runs on CPUs only"
    if problem.fact("quantised"):
        return "rounds tokens itself"
    if chip.int8_unit is None and chip.x86 and chip.onednn:
        return "this CPU has no int8 products (AMX, AVX512-VNNI or AVX-VNNI)"
    if problem.fact("compiling") and not problem.fact("prepared"):
        return "packs weights before they are compiled"
    return unsupported_chip(chip) or _no_compiled_gradient(problem)


def _no_compiled_gradient(problem: Problem) -> str | None:
    compiled = problem.fact("compiling") and problem.fact("training")
    return "has no backward pass in its compiled form" if compiled else None


def pack(weight: Tensor) -> Tensor:
    """int8 [O, K] -> the same in the layout that oneDNN multiplies (an opaque tensor)."""
    packed: Tensor = torch.ops.onednn.qlinear_prepack(weight, None)
    return packed


def int8_matmul(
    x: Tensor, weight: Tensor, scales: Tensor, bias: Tensor | None, act: Act, packed: Tensor, shift: int = 0
) -> Tensor:
    """As the reference, with the weight packed by `pack` as well. shift: added to activations, 0 or `SHIFT`."""
    zeros = torch.zeros(len(scales), dtype=torch.int32)

    def scaled(values: Tensor) -> Tensor:
        return multiply(values, packed, scales, zeros, x.dtype)

    return _by_rows(x, weight, scales, bias, act, scaled, shift)


int8_matmul_shifted = partial(int8_matmul, shift=SHIFT)


def int8_matmul_float32(
    x: Tensor, weight: Tensor, scales: Tensor, bias: Tensor | None, act: Act = "none"
) -> Tensor:
    """As the reference: [..., K] -> [..., O]."""
    wide = weight.float()

    def scaled(values: Tensor) -> Tensor:
        return (F.linear(values.float(), wide) * scales).to(x.dtype)

    return _by_rows(x, weight, scales, bias, act, scaled, 0)


def multiply(values: Tensor, packed: Tensor, scales: Tensor, zeros: Tensor, dtype: torch.dtype) -> Tensor:
    """Whole numbers [N, K] times packed weights -> [N, O] in `dtype`, times the scales [O] of the outputs.

    values: int8, or uint8 that stand for themselves less `SHIFT`. zeros: int32 [O], the zero points of the weights.
    """
    shift = SHIFT if values.dtype == torch.uint8 else 0
    out: Tensor = torch.ops.onednn.qlinear_pointwise(
        values, 1.0, shift, packed, scales, zeros, None, 1.0, 0, dtype, "none", [], ""
    )
    return out


def _by_rows(
    x: Tensor, weight: Tensor, scales: Tensor, bias: Tensor | None, act: Act, scaled: Scaled, shift: int
) -> Tensor:
    """As the reference. shift: what is added to whole numbers before `scaled` gets them; with one they are uint8."""
    rows = x.reshape(-1, x.shape[-1])
    if needs_grad(x, bias):
        out: Tensor = _Product.apply(rows, weight, scales, bias, scaled, shift)  # type: ignore[no-untyped-call]
        out = F.silu(out) if act == "silu" else out
    else:
        out = _forward(rows, scales, bias, act, scaled, shift)
    return out.reshape(*x.shape[:-1], len(scales))


def _forward(x: Tensor, scales: Tensor, bias: Tensor | None, act: Act, scaled: Scaled, shift: int) -> Tensor:
    """x [N, K] -> [N, O], `_ROWS` at a time."""
    out, zero = torch.empty(len(x), len(scales), dtype=x.dtype), x.new_zeros(1)
    for start in range(0, len(x), _ROWS):
        part, window = x[start : start + _ROWS], out[start : start + _ROWS]
        per_row = token_scales(part)[:, None]  # [n, 1]
        # A row with NaN or Inf has such a scale, and whatever its values round to, its product is NaN.
        sums = scaled(whole(part * per_row.reciprocal(), shift))
        torch.addcmul(zero if bias is None else bias, sums, per_row.to(x.dtype), out=window)
        if act == "silu":
            F.silu(window, inplace=True)
    return out


def whole(values: Tensor, shift: int) -> Tensor:
    """Round to int8, or shifted to uint8; overwrites `values`."""
    return (values.round_().add_(shift) if shift else values.round_()).to(
        torch.uint8 if shift else torch.int8
    )


class _Product(torch.autograd.Function):
    """x [N, K] -> [N, O]; backward as the reference."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        scales: Tensor,
        bias: Tensor | None,
        scaled: Scaled,
        shift: int,
    ) -> Tensor:
        ctx.save_for_backward(weight, scales)
        ctx.has_bias = bias is not None
        return _forward(x, scales, bias, "none", scaled, shift)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, Tensor | None, None, None]:
        weight, scales = ctx.saved_tensors
        dx = (grad.float() * scales) @ weight.float()
        dbias = grad.float().sum(0) if ctx.has_bias else None
        return dx.to(grad.dtype), None, None, dbias, None, None


def int8_matmul_traced(
    x: Tensor, weight: Tensor, scales: Tensor, bias: Tensor | None, act: Act, packed: Tensor, shift: int = 0
) -> Tensor:
    """`int8_matmul` for a compiler, without a gradient: oneDNN's product is one operator, `int8_product`."""
    rows = x.reshape(-1, x.shape[-1])
    per_row = token_scales(rows)[:, None]  # [N, 1]
    # What NaN rounds to does not matter: the scale of its row is NaN as well.
    rounded = (rows.float() * per_row.reciprocal()).round()
    values = (rounded + shift).to(torch.uint8) if shift else rounded.to(torch.int8)
    out = int8_product(values, packed, scales, x.dtype).float() * per_row
    out = out if bias is None else out + bias
    out = F.silu(out) if act == "silu" else out
    return out.to(x.dtype).reshape(*x.shape[:-1], len(scales))


int8_matmul_shifted_traced = partial(int8_matmul_traced, shift=SHIFT)


@torch.library.custom_op("sanakit::int8_product", mutates_args=())
def int8_product(values: Tensor, packed: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    """Whole numbers [N, K] as `multiply` takes them, packed weights, scales [O] -> [N, O] in `dtype`."""
    return multiply(values, packed, scales, torch.zeros(len(scales), dtype=torch.int32), dtype)


@int8_product.register_fake
def _(values: Tensor, packed: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    return values.new_empty((len(values), len(scales)), dtype=dtype)


def int8_matmul_float32_traced(
    x: Tensor, weight: Tensor, scales: Tensor, bias: Tensor | None, act: Act = "none"
) -> Tensor:
    """`int8_matmul_float32` for a compiler, without a gradient."""
    per_row = token_scales(x)[..., None]
    # What NaN rounds to does not matter: the scale of its row is NaN as well.
    out = F.linear((x.float() * per_row.reciprocal()).round(), weight.float()) * scales * per_row
    out = out if bias is None else out + bias
    return (F.silu(out) if act == "silu" else out).to(x.dtype)
