"""The same without the large map: of every 2 x 2 outputs, each is a 2 x 2 convolution of the small map.

A 3x3 window over a map of doubled pixels sees two distinct rows and two distinct columns, so nine taps are four sums of
taps: 16 products an input position instead of 36. For output row 2i + a the window covers input rows i - 1 + a and
i + a; a convolution padded by one computes row r from rows r - 1 and r, so its row i + a is what is wanted.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sanakit.kernels.problem import Problem

_TAPS = (((0,), (1, 2)), ((0, 1), (2,)))
"""For an output row of parity a: the taps that fall on the first and on the second input row that it sees."""


def refuses(problem: Problem) -> str | None:
    """Why this row does not run a problem; None where it does."""
    return "has no backward pass" if problem.fact("training") else None


def prepare(weight: Tensor) -> Tensor:
    """[D, C, 3, 3] -> [4, D, C, 2, 2]: the kernels of the four outputs, taps summed in float32."""
    wide = weight.detach().float()
    rows = [_sums(wide, taps, dim=2) for taps in _TAPS]  # [D, C, 2, 3] each
    return torch.stack([_sums(part, taps, dim=3) for part in rows for taps in _TAPS]).to(weight.dtype)


def _sums(weight: Tensor, taps: tuple[tuple[int, ...], ...], dim: int) -> Tensor:
    return torch.stack([weight[(slice(None),) * dim + (list(t),)].sum(dim) for t in taps], dim=dim)


def upsample_conv(x: Tensor, quarters: Tensor, bias: Tensor | None, shortcut: bool) -> Tensor:
    """As the reference, with the weight made by `prepare`; the result is channels last."""
    batch, _, height, width = x.shape
    channels = quarters.shape[1]
    x = x.contiguous(memory_format=torch.channels_last)
    size = (batch, channels, 2 * height, 2 * width)
    out = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    for place, weight in enumerate(quarters):
        a, b = divmod(place, 2)
        part = F.conv2d(x, weight, bias, padding=1)[..., a : a + height, b : b + width]
        window = out[..., a::2, b::2]
        window.copy_(part if not shortcut else part + _moved(x, channels, place))
    return out


def _moved(x: Tensor, channels: int, place: int) -> Tensor:
    """What the shortcut moves to place 2a + b of every 2 x 2: [B, C, h, w] -> [B, channels, h, w]."""
    repeats = 4 * channels // x.shape[1]
    if 4 % repeats == 0:
        return x[:, place // repeats :: 4 // repeats]
    return x[:, (4 * torch.arange(channels, device=x.device) + place) // repeats]
