"""AdaLN-single: one small network turns time into six vectors that every block offsets by its own table.

PixArt-alpha (arXiv 2310.00426), section 2.3. Gates are not zero-initialised: a fresh block is not an identity.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from sanakit.kernels import QuantTokens, add_norm_modulate


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
