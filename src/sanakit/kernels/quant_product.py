"""What references of products in few bits share: exact products of rounded tokens and weights, rounding as identity."""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sanakit.kernels.linear.reference import Act


def quant_product(
    x: Tensor, tokens: tuple[Tensor, Tensor], weight: tuple[Tensor, Tensor], bias: Tensor | None, act: Act
) -> Tensor:
    """Multiply rounded tokens by rounded weights in float64.

    Args:
        x: [..., K], what the tokens were before rounding.
        tokens: values [..., K] and steps [...].
        weight: values [O, K] and steps [O].
        bias: [O] or None.
        act: on the result.

    Returns:
        [..., O] in the dtype of x. The gradient is that of the product with the weights as they are; rounding of x
        counts as the identity (the straight-through estimator, arXiv 1308.3432).
    """
    wide = x.double()
    rounded = wide + (_value(tokens) - wide).detach()
    product = rounded @ _value(weight).T
    out = (product if bias is None else product + bias.double()).to(x.dtype)
    return F.silu(out) if act == "silu" else out


def _value(rounded: tuple[Tensor, Tensor]) -> Tensor:
    values, steps = rounded
    return values.double() * steps.double()[..., None]
