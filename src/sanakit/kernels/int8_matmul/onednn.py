"""W8A8 products on CPUs through oneDNN: weights packed once, whole sums in int32, steps applied to the result.

AMX multiplies signed activations by signed weights. AVX512-VNNI and AVX-VNNI multiply unsigned by signed ones, so there
activations are shifted by 128, and oneDNN takes 128 times the sums of the weights away again, exactly, in int32. Handed
signed ones it would walk through its reference loop, hundreds of times slower. Older units add two products of int8
in int16, which overflows: neither row runs there. That each is right and fast on the machine at hand is tried before it
is chosen (see `proof`).

In half precision the sums are rounded once before and once after the step of their row, a hundredth of the error that
int8 itself makes.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from sanakit.base.chip import Chip, this_chip
from sanakit.kernels.int8_matmul.product import product
from sanakit.kernels.linear.onednn import unusable
from sanakit.kernels.linear.reference import Act
from sanakit.kernels.problem import Problem

SHIFT = 128
"""What makes values of -127 to 127 unsigned."""


def refuses(problem: Problem) -> str | None:
    """Why oneDNN can't multiply signed activations; None where it does."""
    chip = this_chip()
    refusal = _refuses(problem, chip)
    if refusal is None and not chip.amx_int8:
        return f"multiplies signed activations by AMX alone, and this CPU has {chip.int8_unit} or may use no more"
    return refusal


def refuses_shifted(problem: Problem) -> str | None:
    """Why oneDNN can't multiply shifted activations; None where it does."""
    return _refuses(problem, this_chip())


def _refuses(problem: Problem, chip: Chip) -> str | None:
    if problem.device != "cpu":
        return "runs on CPUs only"
    if problem.fact("rounded"):
        return "rounds tokens itself"
    if chip.int8_unit is None and chip.x86 and chip.onednn:
        return "this CPU has no int8 products (AMX, AVX512-VNNI or AVX-VNNI)"
    return unusable(chip)


def pack(weight: Tensor) -> Tensor:
    """int8 [O, K] -> the same in the layout that oneDNN multiplies (an opaque tensor), for both rows."""
    packed: Tensor = torch.ops.onednn.qlinear_prepack(weight, None)
    return packed


def int8_matmul(
    x: Tensor, weight: Tensor, steps: Tensor, bias: Tensor | None, act: Act, packed: Tensor, shift: int = 0
) -> Tensor:
    """As the reference, with the weight packed by `pack` as well. shift: added to activations, 0 or `SHIFT`."""
    none = torch.zeros(len(steps), dtype=torch.int32)

    def scaled(values: Tensor) -> Tensor:
        return multiply(values, packed, steps, none, x.dtype)

    return product(x, weight, steps, bias, act, scaled, shift)


int8_matmul_shifted = partial(int8_matmul, shift=SHIFT)


def multiply(values: Tensor, packed: Tensor, steps: Tensor, zeros: Tensor, dtype: torch.dtype) -> Tensor:
    """Whole numbers [N, K] times packed weights -> [N, O] in `dtype`, scaled by the steps [O] of the outputs.

    values: int8, or uint8 that stand for themselves less `SHIFT`.
    """
    shift = SHIFT if values.dtype == torch.uint8 else 0
    out: Tensor = torch.ops.onednn.qlinear_pointwise(
        values, 1.0, shift, packed, steps, zeros, None, 1.0, 0, dtype, "none", [], ""
    )
    return out
