"""Wide maps in bands of rows, exactly: what only sees near neighbours needs no more of a map than a band and its rim.

A band is computed with as many more rows on either side as the layers can see, and those are cut off again, so the
result is that of the whole map. Memory then holds the inner maps of one band: a fresh page costs a CPU more than the
arithmetic on it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

BAND = 1 << 26
"""Bytes of one inner map of a band, about."""


def in_bands(run: Callable[[Tensor], Tensor], x: Tensor, *, width: int, reach: int) -> Tensor:
    """`run(x)`, for a `run` that doubles the resolution and sees `reach` rows of its output to either side.

    Maps that fit one band, other devices, and whatever wants a gradient run at once.

    Args:
        run: [B, C, h, w] -> [B, D, 2h, 2w].
        x: [B, C, h, w].
        width: channels of the maps inside of `run`.
        reach: rows at the resolution of the output, without those that the doubling itself sees.
    """
    height = x.shape[2]
    inner = 4 * x.shape[0] * width * height * x.shape[3] * x.element_size()
    count = min(-(-inner // BAND), height)
    if count < 2 or x.device.type != "cpu" or torch.is_grad_enabled():
        return run(x)
    rim = -(-reach // 2) + 1  # the doubling sees one row of x to either side
    edges = [height * i // count for i in range(count + 1)]
    out = torch.empty(0)
    for first, last in zip(edges[:-1], edges[1:], strict=True):
        start = max(0, first - rim)
        band = run(x[:, :, start : last + rim])
        if not out.numel():
            out = _like(band, 2 * height)
        out[:, :, 2 * first : 2 * last] = band[:, :, 2 * (first - start) : 2 * (last - start)]
    return out


def _like(band: Tensor, height: int) -> Tensor:
    """An empty [B, D, height, w] in the dtype and layout of a band."""
    size = (*band.shape[:2], height, band.shape[3])
    last = band.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty(size, dtype=band.dtype, memory_format=layout)
