"""W8A8 products in plain torch: the definition that faster rows must equal.

Symmetric, as LLM.int8 (arXiv 2208.07339, section 2.1) without its outliers: a row of weights (an output channel) and a
row of activations (a token) have one step each, the largest value over 127, and

    y[n, o] = step_x[n] * step_w[o] * sum_k x_int8[n, k] * w_int8[o, k] + bias[o]

with the sum exact. Steps of tokens are taken from the tokens at hand, so nothing has to be calibrated, and are numbers
that bf16 has, so that a product in bf16 can be scaled in bf16 without a second error.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sanakit.kernels.int8_matmul.tokens import QuantTokens
from sanakit.kernels.linear.reference import Act
from sanakit.kernels.quant_product import quant_product

LARGEST = 127
_NEXT = (
    1 + 5 / 1024
)  # times this, a number of bf16, 128 to 255 units of its last place, rounds to the one above it


def quantise_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Split every row into whole steps.

    Args:
        x: [..., K], any floating dtype.

    Returns:
        int8 [..., K] in -127..127, and the steps [...] in float32: x is nearly `values * steps[..., None]`.
        A row with NaN or Inf has a step of NaN or Inf, so that products with it are NaN.
    """
    wide = x.float()
    steps = (wide.abs().amax(dim=-1) / LARGEST).clamp_min(torch.finfo(torch.float32).tiny)
    values = (wide / steps[..., None]).round().clamp(-LARGEST, LARGEST)
    return values.nan_to_num(0.0).to(torch.int8), steps


def quantise_tokens(x: Tensor) -> tuple[Tensor, Tensor]:
    """As `quantise_rows`, by steps that are numbers of bf16: the next ones above, so that no value leaves the range."""
    steps = token_steps(x)
    values = (x.float() * steps.reciprocal()[..., None]).round()
    return values.nan_to_num(0.0).to(torch.int8), steps


def token_steps(x: Tensor) -> Tensor:
    """[..., K] -> [...] in float32: the largest value over 127, rounded up to a number that bf16 has."""
    exact = (x.abs().amax(dim=-1).float() / LARGEST).clamp_min(torch.finfo(torch.float32).tiny)
    near = exact.to(torch.bfloat16).float()
    return torch.where(near < exact, (near * _NEXT).to(torch.bfloat16).float(), near)


def int8_matmul(
    x: Tensor | QuantTokens, weight: Tensor, steps: Tensor, bias: Tensor | None, act: Act = "none"
) -> Tensor:
    """Multiply tokens by quantised weights.

    Args:
        x: [..., K], any floating dtype, or tokens that are rounded already.
        weight: int8 [O, K].
        steps: float32 [O].
        bias: [O] or None.
        act: "silu" or "none", on the result.

    Returns:
        [..., O] in the dtype of x; for the gradient see `quant_product`.
    """
    if isinstance(x, QuantTokens):
        return quant_product(x.exact(), (x.values, x.steps), (weight, steps), bias, act).to(x.dtype)
    return quant_product(x, quantise_tokens(x.detach()), (weight, steps), bias, act)
