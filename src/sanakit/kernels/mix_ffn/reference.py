"""SiLU, depthwise 3x3 and gate of the Mix-FFN in plain torch.

SANA (arXiv 2410.10629), section 2.2: the depthwise convolution sees neighbouring tokens, which is what lets the network
do without positional embeddings. The first half of the channels is the value, the second half the gate.
"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def gated_depthwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Mix neighbouring positions and gate.

    Args:
        x: [B, 2F, h, w], before the SiLU.
        weight: [2F, 1, 3, 3].
        bias: [2F] or None.

    Returns:
        [B, F, h, w]: conv(silu(x))[:F] * silu(conv(silu(x))[F:]).
    """
    mixed = F.conv2d(F.silu(x), weight, bias, padding=1, groups=weight.shape[0])
    value, gate = mixed.chunk(2, dim=1)
    return value * F.silu(gate)


def depthwise_glu(value: Tensor, gate: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute it from halves that went through the SiLU already, as fused rows of the product before it leave them.

    Args:
        value: [B, F, h, w].
        gate: [B, F, h, w].
        weight: [2F, 1, 3, 3], the value's filters first.
        bias: [2F] or None.

    Returns:
        [B, F, h, w].
    """
    half = value.shape[1]
    biases = (None, None) if bias is None else (bias[:half], bias[half:])
    mixed = F.conv2d(value, weight[:half], biases[0], padding=1, groups=half)
    return mixed * F.silu(F.conv2d(gate, weight[half:], biases[1], padding=1, groups=half))
