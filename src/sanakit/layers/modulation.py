"""AdaLN-single: one small network turns time into six vectors that every block offsets by its own table.

PixArt-alpha (arXiv 2310.00426), section 2.3. Gates are not zero-initialised: a fresh block is not an identity.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Modulation(NamedTuple):
    """What time does to one branch: x -> norm(x) * (1 + scale) + shift, then branch(x) * gate. Each [B, F, D]."""

    shift: Tensor
    scale: Tensor
    gate: Tensor


def split_modulation(table: Tensor, signal: Tensor) -> tuple[Modulation, Modulation]:
    """Modulation of the attention branch and of the feed-forward branch.

    Args:
        table: [6, D], the block's own offset: shift, scale, gate for attention, then for the feed-forward.
        signal: [B, F, 6, D] from time, shared by all blocks; F = 1 for images, one per frame for video.
    """
    shift1, scale1, gate1, shift2, scale2, gate2 = (table + signal).unbind(dim=-2)
    return Modulation(shift1, scale1, gate1), Modulation(shift2, scale2, gate2)


def per_token(modulation: Modulation, tokens: int) -> Modulation:
    """[B, F, D] -> something that broadcasts over [B, N, D]: as it is for F = 1, else repeated within each frame."""
    frames = modulation.shift.shape[1]
    if frames == 1:
        return modulation
    return Modulation(*(part.repeat_interleave(tokens // frames, dim=1) for part in modulation))
