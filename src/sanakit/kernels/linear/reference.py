"""A linear layer and its activation in plain torch: the definition that faster rows must equal."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

Act = Literal["none", "silu"]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, act: Act = "none") -> Tensor:
    """Multiply, add, activate.

    Args:
        x: [..., K].
        weight: [O, K].
        bias: [O] or None.
        act: "silu" or "none".

    Returns:
        [..., O] in the dtype of x.
    """
    product = F.linear(x, weight, bias)
    return F.silu(product) if act == "silu" else product
