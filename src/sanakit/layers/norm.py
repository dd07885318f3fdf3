"""RMS norms: over the width of tokens [B, N, D], and over the channels of maps [B, C, h, w].

Variance is computed in float32. With a half-precision weight the normalised value is rounded to the weight's dtype
before it is multiplied, as the published checkpoints were run.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sanakit.kernels import rms_norm


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last axis (arXiv 1910.07467, equation 4).

    For qk-norm the axis is the full width D, across heads (SANA-1.5, arXiv 2501.18427, section 3.1).
    """

    def __init__(self, width: int, eps: float, bias: bool = False) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D] in the dtype of `x`."""
        rows = x.reshape(-1, x.shape[-1], 1, 1)  # tokens as the positions of a map
        return rms_norm(rows, None, self.weight, self.bias, self.eps).reshape(x.shape)


class ChannelRMSNorm(nn.Module):
    """RMS norm with weight and bias over the channel axis of a map, and perhaps a residual behind it."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """[B, C, h, w] -> [B, C, h, w]: norm(x), or residual + norm(x)."""
        return rms_norm(x, residual, self.weight, self.bias, self.eps)
