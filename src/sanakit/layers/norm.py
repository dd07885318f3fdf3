"""Norms and their modulation: RMS norms of tokens [B, N, D] and of maps [B, C, h, w], and AdaLN-single.

Variance is computed in float32. With a half-precision weight the normalised value is rounded to the weight's dtype
before it is multiplied, as the published checkpoints were run. AdaLN-single (PixArt-alpha, arXiv 2310.00426, section
2.3): one small network turns time into six vectors that every block offsets by its own table. Gates are not
zero-initialised: a fresh block is not an identity.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from sanakit.kernels import QuantTokens, add_norm_modulate, rms_norm


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
    """RMS norm with weight and bias over the channel axis of a map, with an optional residual added to it."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """[B, C, h, w] -> [B, C, h, w]: norm(x), or residual + norm(x)."""
        return rms_norm(x, residual, self.weight, self.bias, self.eps)


class Modulation(NamedTuple):
    """Shift, scale and gate of one branch, [B, 1, D] each: x + gate * branch(norm(x) * (1 + scale) + shift)."""

    shift: Tensor
    scale: Tensor
    gate: Tensor


def split_modulation(table: Tensor, modulation: Tensor) -> tuple[Modulation, Modulation]:
    """Modulation of the attention branch and of the feed-forward branch.

    Args:
        table: [6, D], the block's own offset: shift, scale, gate for attention, then for the feed-forward.
        modulation: [B, 1, 6, D] from time, shared by all blocks; [1, 1, 6, D] for one time for all samples.
    """
    shift1, scale1, gate1, shift2, scale2, gate2 = (table + modulation).unbind(dim=-2)
    return Modulation(shift1, scale1, gate1), Modulation(shift2, scale2, gate2)


class AdaLN(nn.Module):
    """Adds a branch to the tokens and normalises the sum for the next branch, in one operator. It has no parameters.

    A module, so that an edit can put one in its place that also quantises (`adapt.quantise`).
    """

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps

    def forward(
        self, x: Tensor, modulation: Modulation, branch: Tensor | None = None
    ) -> tuple[Tensor, Tensor | QuantTokens]:
        """[B, N, D] -> x + branch, and its norm, scaled and shifted, [B, N, D] each."""
        return add_norm_modulate(x, branch, None, modulation.shift, modulation.scale, self.eps)
