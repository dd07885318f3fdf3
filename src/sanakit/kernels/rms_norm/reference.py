"""RMS norms in plain torch: over the channels of a map with a residual, and over all heads of queries and keys.

The mean square is taken in float32, and the normalised value is rounded to the weight's dtype before it is multiplied,
as the published checkpoints were run.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class QKNorm(NamedTuple):
    """How queries and keys are normalised: weights [H*D] of both, and what is added to the mean square."""

    query: Tensor
    key: Tensor
    eps: float


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


def qk_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Normalise queries or keys over their full width, across heads.

    SANA-1.5 (arXiv 2501.18427), section 3.1: with a learned weight, before the ReLU of linear attention.

    Args:
        x: [B, N, H, D].
        weight: [H*D].
        eps: added to the mean square.

    Returns:
        [B, N, H, D] in the dtype of x: x / rms(x) * weight.
    """
    return rms_norm(tokens_as_map(x, weight), None, weight, None, eps).reshape(x.shape)


def tokens_as_map(x: Tensor, weight: Tensor) -> Tensor:
    """[B, N, H, D], [H*D] -> [B*N, H*D, 1, 1]: every token is a map of one position."""
    return x.flatten(-2).reshape(-1, weight.numel(), 1, 1)
