"""The inputs of the network: embeddings of time and text, and positions as a table or as rotary angles."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from sanakit.base.precision import CPU
from sanakit.base.sizes import Grid
from sanakit.layers.norm import RMSNorm

_MAX_PERIOD = 10_000.0
_TEXT_NORM_INIT = 0.01


def sinusoid(value: Tensor, width: int = 256) -> Tensor:
    """[...] -> [..., width]: cosines first, then sines, over geometric periods up to 10,000, in float32."""
    half = width // 2
    steps = torch.arange(half, dtype=torch.float32, device=value.device)
    angles = value.float().unsqueeze(-1) * torch.exp(-math.log(_MAX_PERIOD) / half * steps)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class ScalarEmbed(nn.Module):
    """A number (time, guidance) -> [D]: sinusoid, Linear, SiLU, Linear."""

    def __init__(self, width: int, features: int = 256) -> None:
        super().__init__()
        self.features = features
        self.input = nn.Linear(features, width)
        self.output = nn.Linear(width, width)

    def forward(self, value: Tensor) -> Tensor:
        """[B] (or [B, F]) -> [B, D] (or [B, F, D]) in the dtype of the weights."""
        x = sinusoid(value, self.features).to(self.input.weight.dtype)
        out: Tensor = self.output(F.silu(self.input(x)))
        return out


class TextEmbed(nn.Module):
    """Text states [B, L, C] -> [B, L, D]: MLP, then RMS norm with a small learned scale.

    The scale starts at 0.01 because Gemma's states are hundreds of times larger than image tokens and training
    diverges otherwise (arXiv 2410.10629, section 2.3).
    """

    def __init__(self, width_in: int, width: int, eps: float) -> None:
        super().__init__()
        self.input = nn.Linear(width_in, width)
        self.output = nn.Linear(width, width)
        self.norm = RMSNorm(width, eps)
        nn.init.constant_(self.norm.weight, _TEXT_NORM_INIT)

    def forward(self, states: Tensor) -> Tensor:
        """[B, L, C] -> [B, L, D]."""
        out: Tensor = self.norm(self.output(F.gelu(self.input(states), approximate="tanh")))
        return out


@lru_cache(maxsize=32)
def position_table(
    height: int, width: int, channels: int, base: int, scale: float, device: torch.device = CPU
) -> Tensor:
    """Return the sin-cos table of the 2K and 4K checkpoints, for any size.

    Positions span [0, base / scale) along each side whatever the aspect ratio, so other sizes are interpolated.

    Args:
        height: of the token grid.
        width: of the token grid.
        channels: D, a multiple of 4; the first half encodes columns, the second rows, each [sin | cos].
        base: side of the token grid in training.
        scale: position interpolation of the checkpoint (1 for 2K, 2 for 4K).
        device: of the result. The table is computed on the CPU, once for each device.

    Returns:
        [1, h * w, D] float32, computed in float64.
    """
    rows = torch.arange(height, dtype=torch.float64) / (height / base) / scale
    cols = torch.arange(width, dtype=torch.float64) / (width / base) / scale
    quarter = channels // 4
    omega = _MAX_PERIOD ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    by_col = (cols[None, :, None] * omega).expand(height, width, quarter)
    by_row = (rows[:, None, None] * omega).expand(height, width, quarter)
    table = torch.cat([by_col.sin(), by_col.cos(), by_row.sin(), by_row.cos()], dim=-1)
    return table.reshape(1, height * width, channels).float().to(device)


_THETA = 10_000.0


def axis_channels(head_dim: int) -> tuple[int, int, int]:
    """Return how a head's channels are shared by (frames, rows, columns): 112 -> (40, 36, 36)."""
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
