"""Products in fp8 in plain torch: the definition that faster rows must equal.

Numbers of e4m3 (arXiv 2209.05433) have three bits behind the point and reach 448. As in `int8_matmul`, a row of weights
and a row of activations have one step each, here the largest value over 448, taken from the tokens at hand:

    y[n, o] = step_x[n] * step_w[o] * sum_k x_fp8[n, k] * w_fp8[o, k] + bias[o]
"""

from __future__ import annotations

import torch
from torch import Tensor

from sanakit.kernels.linear.reference import Act
from sanakit.kernels.quant_product import quant_product

DTYPE = torch.float8_e4m3fn
LARGEST = 448.0


def quantise_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Round every row to numbers of fp8 times a step.

    Args:
        x: [..., K], any floating dtype.

    Returns:
        e4m3 [..., K] and the steps [...] in float32: x is nearly `values * steps[..., None]`. A row with NaN or Inf
        has a step of NaN or Inf, so that products with it are no numbers.
    """
    wide = x.float()
    steps = (wide.abs().amax(dim=-1) / LARGEST).clamp_min(torch.finfo(torch.float32).tiny)
    return (wide / steps[..., None]).clamp(-LARGEST, LARGEST).to(DTYPE), steps


def fp8_matmul(x: Tensor, weight: Tensor, steps: Tensor, bias: Tensor | None, act: Act = "none") -> Tensor:
    """Multiply tokens by weights in fp8.

    Args:
        x: [..., K], any floating dtype.
        weight: e4m3 [O, K].
        steps: float32 [O].
        bias: [O] or None.
        act: "silu" or "none", on the result.

    Returns:
        [..., O] in the dtype of x; for the gradient see `quant_product`.
    """
    return quant_product(x, quantise_rows(x.detach()), (weight, steps), bias, act)
