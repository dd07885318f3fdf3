"""Convolutions of the autoencoder: one that keeps the size, with its SiLU, and one that doubles the resolution.

The references `conv` and `upsample_conv`, oneDNN's convolution on CPUs (`onednn`, which computes the SiLU on the way
and so saves a pass over the largest maps), and `quarters`, an upsampling that never makes the large map.

`quarters`: of every 2 x 2 outputs, each is a 2 x 2 convolution of the small map. A 3x3 window over a map of doubled
pixels sees two distinct rows and two distinct columns, so nine taps are four sums of taps: 16 products an input
position instead of 36. For output row 2i + a the window covers input rows i - 1 + a and i + a; a convolution padded
by one computes row r from rows r - 1 and r, so the row wanted is its row i + a.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sanakit.kernels.linear import Act

_TAPS = (((0,), (1, 2)), ((0, 1), (2,)))
"""For an output row of parity a: the taps that fall on the first and on the second input row that it sees."""


def conv(x: Tensor, weight: Tensor, bias: Tensor | None, act: Act = "none") -> Tensor:
    """Convolve with zero padding that keeps the size, and activate.

    Args:
        x: [B, C, h, w].
        weight: [D, C, k, k] with odd k.
        bias: [D] or None.
        act: "silu" or "none".

    Returns:
        [B, D, h, w].
    """
    mixed = F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)
    return F.silu(mixed) if act == "silu" else mixed


def onednn(x: Tensor, weight: Tensor, bias: Tensor | None, act: Act = "none") -> Tensor:
    """As `conv`; the result is channels last."""
    pad, ones = [weight.shape[-1] // 2] * 2, [1, 1]
    out: Tensor = torch.ops.mkldnn._convolution_pointwise(
        x.contiguous(memory_format=torch.channels_last), weight, bias, pad, ones, ones, 1,
        "swish" if act == "silu" else "none", [], "",
    )  # fmt: skip
    return out


def upsample_conv(x: Tensor, weight: Tensor, bias: Tensor | None, shortcut: bool) -> Tensor:
    """Double the resolution: nearest x2, a 3x3 convolution, and DC-AE's shortcut.

    DC-AE (arXiv 2410.10733), section 3.1: the shortcut moves channels into space, repeating them if there are too few.

    Args:
        x: [B, C, h, w].
        weight: [D, C, 3, 3]; with a shortcut 4 D is a multiple of C.
        bias: [D] or None.
        shortcut: whether to add the channels of x, moved into space.

    Returns:
        [B, D, 2h, 2w].
    """
    y = F.conv2d(F.interpolate(x, scale_factor=2.0, mode="nearest"), weight, bias, padding=1)
    if not shortcut:
        return y
    return y + F.pixel_shuffle(x.repeat_interleave(4 * len(weight) // x.shape[1], dim=1), 2)


def split_taps(weight: Tensor) -> Tensor:
    """[D, C, 3, 3] -> [4, D, C, 2, 2]: the kernels of the four outputs for `quarters`, taps summed in float32."""
    wide = weight.detach().float()
    rows = [_sums(wide, taps, dim=2) for taps in _TAPS]  # [D, C, 2, 3] each
    return torch.stack([_sums(part, taps, dim=3) for part in rows for taps in _TAPS]).to(weight.dtype)


def _sums(weight: Tensor, taps: tuple[tuple[int, ...], ...], dim: int) -> Tensor:
    return torch.stack([weight[(slice(None),) * dim + (list(t),)].sum(dim) for t in taps], dim=dim)


def quarters(x: Tensor, kernels: Tensor, bias: Tensor | None, shortcut: bool) -> Tensor:
    """As `upsample_conv`, with the weight made by `split_taps`; the result is channels last."""
    batch, _, height, width = x.shape
    channels = kernels.shape[1]
    x = x.contiguous(memory_format=torch.channels_last)
    size = (batch, channels, 2 * height, 2 * width)
    out = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    for index, weight in enumerate(kernels):
        a, b = divmod(index, 2)
        part = F.conv2d(x, weight, bias, padding=1)[..., a : a + height, b : b + width]
        window = out[..., a::2, b::2]
        window.copy_(part if not shortcut else part + _shortcut(x, channels, index))
    return out


def _shortcut(x: Tensor, channels: int, index: int) -> Tensor:
    """Return what the shortcut adds to output 2a + b of every 2 x 2: [B, C, h, w] -> [B, channels, h, w]."""
    repeats = 4 * channels // x.shape[1]
    if 4 % repeats == 0:
        return x[:, index // repeats :: 4 // repeats]
    return x[:, (4 * torch.arange(channels, device=x.device) + index) // repeats]
