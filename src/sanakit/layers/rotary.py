"""Rotary positions over frames, rows and columns, as angles that linear attention applies after its ReLU.

SANA-Video (arXiv 2509.24695), section 3.1: channels of a head are split over the three axes.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from sanakit.base.precision import CPU
from sanakit.base.sizes import Grid

_THETA = 10_000.0


def axis_channels(head_dim: int) -> tuple[int, int, int]:
    """How a head's channels are shared by (frames, rows, columns): 112 -> (40, 36, 36)."""
    side = 2 * (head_dim // 6)
    return head_dim - 2 * side, side, side


@lru_cache(maxsize=32)
def rotary_angles(grid: Grid, head_dim: int, device: torch.device = CPU) -> Tensor:
    """[N, head_dim / 2] float32 radians on a device, for tokens in row-major (frame, row, column) order."""
    axes = []
    for length, channels in zip((grid.frames, grid.height, grid.width), axis_channels(head_dim), strict=True):
        rates = _THETA ** (-torch.arange(0, channels, 2, dtype=torch.float64) / channels)
        axes.append(torch.arange(length, dtype=torch.float64)[:, None] * rates)
    frames, rows, cols = axes
    shape = (grid.frames, grid.height, grid.width)
    table = torch.cat(
        [
            frames[:, None, None, :].expand(*shape, -1),
            rows[None, :, None, :].expand(*shape, -1),
            cols[None, None, :, :].expand(*shape, -1),
        ],
        dim=-1,
    )
    return table.reshape(grid.tokens, head_dim // 2).float().to(device)
