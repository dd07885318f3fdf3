"""W8A8 products under torch.compile on a CPU: oneDNN's product as one operator, rounding and steps for the compiler.

What surrounds the product reads and writes its tensors once each when the compiler fuses it with the layers before and
behind; row by row in eager torch it takes as long as the product.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sanakit.kernels.int8_matmul.onednn import multiply
from sanakit.kernels.int8_matmul.reference import token_steps
from sanakit.kernels.linear.reference import Act


def int8_matmul(
    x: Tensor, steps: Tensor, bias: Tensor | None, act: Act, packed: Tensor, shift: int = 0
) -> Tensor:
    """As the reference: [..., K] -> [..., O], with the weight packed by `onednn.pack`; shift: as in `onednn`."""
    rows = x.reshape(-1, x.shape[-1])
    per_row = token_steps(rows)[:, None]  # [N, 1]
    # What NaN rounds to does not matter: the step of its row is NaN as well.
    whole = (rows.float() * per_row.reciprocal()).round()
    values = (whole + shift).to(torch.uint8) if shift else whole.to(torch.int8)
    out = int8_product(values, packed, steps, x.dtype).float() * per_row
    out = out if bias is None else out + bias
    out = F.silu(out) if act == "silu" else out
    return out.to(x.dtype).reshape(*x.shape[:-1], len(steps))


@torch.library.custom_op("sanakit::int8_product", mutates_args=())
def int8_product(values: Tensor, packed: Tensor, steps: Tensor, dtype: torch.dtype) -> Tensor:
    """Whole numbers [N, K] as `onednn.multiply` takes them, packed weights, steps [O] -> [N, O] in `dtype`."""
    return multiply(values, packed, steps, torch.zeros(len(steps), dtype=torch.int32), dtype)


@int8_product.register_fake
def _(values: Tensor, packed: Tensor, steps: Tensor, dtype: torch.dtype) -> Tensor:
    return values.new_empty((len(values), len(steps)), dtype=dtype)
