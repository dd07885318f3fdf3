"""Resampling with residual shortcuts: the moves between resolutions of DC-AE.

DC-AE (arXiv 2410.10733), section 3.1: every down- or upsampler learns only the residual to a parameter-free shortcut
that moves space into channels (mean over groups) or channels into space (repeat).
Letters: B batch, C/D channels in and out, h/w position.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from sanakit.kernels import conv


def in_layout_of(like: Tensor, x: Tensor) -> Tensor:
    """`x` in the memory layout of `like`: shuffles return channels-first, and mixed layouts cost a copy per layer."""
    last = like.is_contiguous(memory_format=torch.channels_last) and not like.is_contiguous()
    return x.contiguous(memory_format=torch.channels_last) if last else x


def group_mean(x: Tensor, channels: int) -> Tensor:
    """[B, C, h, w] -> [B, channels, h, w]: the mean of each C/channels neighbouring channels."""
    return x.unflatten(1, (channels, -1)).mean(dim=2)


def space_to_channels(x: Tensor, channels: int) -> Tensor:
    """[B, C, 2h, 2w] -> [B, channels, h, w] without parameters."""
    return group_mean(F.pixel_unshuffle(x, 2), channels)


def channels_to_space(x: Tensor, channels: int) -> Tensor:
    """[B, C, h, w] -> [B, channels, 2h, 2w] without parameters."""
    return F.pixel_shuffle(x.repeat_interleave(channels * 4 // x.shape[1], dim=1), 2)


class Downsample(nn.Module):
    """Halve the resolution by a strided convolution, or by a convolution and pixel-unshuffle."""

    def __init__(self, width_in: int, width_out: int, *, unshuffle: bool, shortcut: bool = True) -> None:
        super().__init__()
        self.unshuffle, self.shortcut, self.width_out = unshuffle, shortcut, width_out
        if unshuffle:
            self.conv = nn.Conv2d(width_in, width_out // 4, 3, padding=1)
        else:
            self.conv = nn.Conv2d(width_in, width_out, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, 2h, 2w] -> [B, D, h, w]."""
        y = self.conv(x)
        y = in_layout_of(y, F.pixel_unshuffle(y, 2)) if self.unshuffle else y
        return y + in_layout_of(y, space_to_channels(x, self.width_out)) if self.shortcut else y


class Upsample(nn.Module):
    """Double the resolution by nearest x2 and a convolution, or by a convolution and pixel-shuffle."""

    def __init__(self, width_in: int, width_out: int, *, shuffle: bool, shortcut: bool = True) -> None:
        super().__init__()
        self.shuffle, self.shortcut, self.width_out = shuffle, shortcut, width_out
        self.conv = nn.Conv2d(width_in, width_out * 4 if shuffle else width_out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, D, 2h, 2w]."""
        if self.shuffle:
            y = conv(x, self.conv.weight, self.conv.bias)
            y = in_layout_of(y, F.pixel_shuffle(y, 2))
        else:
            y = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return y + in_layout_of(y, channels_to_space(x, self.width_out)) if self.shortcut else y
