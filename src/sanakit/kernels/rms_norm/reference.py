"""RMS norm over channels and a residual in plain torch: the definition that faster rows must equal.

The mean square is taken in float32, and the normalised value is rounded to the weight's dtype before it is multiplied,
as the published checkpoints were run.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rms_norm(x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """Normalise a map over its channels, and add.

    Args:
        x: [B, C, h, w].
        residual: [B, C, h, w], or None for no sum.
        weight: [C].
        bias: [C], or None.
        eps: added to the mean square.

    Returns:
        [B, C, h, w] in the dtype of x: residual + x / rms(x) * weight + bias.
    """
    wide = x.permute(0, 2, 3, 1).float()
    normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    scaled = normed.to(weight.dtype) * weight
    out = (scaled if bias is None else scaled + bias).to(x.dtype).permute(0, 3, 1, 2)
    return out if residual is None else residual + out
