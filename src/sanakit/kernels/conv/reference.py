"""A convolution and its activation in plain torch: the definition that faster rows must equal."""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sanakit.kernels.linear.reference import Act


def conv(x: Tensor, weight: Tensor, bias: Tensor | None, act: Act = "none") -> Tensor:
    """Convolve with zeros around, so that the size stays, and activate.

    Args:
        x: [B, C, h, w].
        weight: [D, C, k, k] with odd k.
        bias: [D] or None.
        act: "silu" or "none".

    Returns:
        [B, D, h, w].
    """
    mixed = F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)
    return F.silu(mixed) if act == "silu" else mixed
