"""Large images piece by piece, so that memory is that of a piece: bands, which are exact, and tiles, which are blended.

A band of rows is computed with as many more rows on either side as its layers can see, and those are cut off again, so
the result is that of the whole map. Bands serve layers that only see near neighbours: a fresh page costs a CPU more
than the arithmetic on it. Tiles overlap: every output position is the weighted mean of the tiles that cover it, and the
weight of a tile falls linearly to its borders inside the overlap.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from sanakit.autoencoder.config import AutoencoderConfig
from sanakit.base.errors import RequestError


class Decodes(Protocol):
    """A `DCAE`, a `LatentDecoder`, or what runs one."""

    @property
    def config(self) -> AutoencoderConfig:
        """Of the autoencoder."""

    def decode(self, latent: Tensor) -> Tensor:
        """[B, C, h, w] -> pixels [B, 3, r*h, r*w]."""


class Encodes(Protocol):
    """A `DCAE`, a `LatentEncoder`, or what runs one."""

    @property
    def config(self) -> AutoencoderConfig:
        """Of the autoencoder."""

    def encode(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] -> latent [B, C, H/r, W/r]."""


def _starts(length: int, tile: int, stride: int) -> list[int]:
    """Return the starts of tiles that cover `length`; the last one is moved back to end with it."""
    if length <= tile:
        return [0]
    return [*range(0, length - tile, stride), length - tile]


def _ramp(size: int, overlap: int, at_start: bool, at_end: bool) -> Tensor:
    """Weights [size]: 1 in the middle, falling towards each border that another tile overlaps."""
    weight = torch.ones(size)
    rise = (torch.arange(overlap) + 1) / (overlap + 1)
    if not at_start:
        weight[:overlap] = torch.minimum(weight[:overlap], rise)
    if not at_end:
        weight[size - overlap :] = torch.minimum(weight[size - overlap :], rise.flip(0))
    return weight


def _tiled(
    x: Tensor, run: Callable[[Tensor], Tensor], tile: int, stride: int, overlap: int, up: int, down: int
) -> Tensor:
    """Apply `run` tile by tile; one input step is `up / down` output steps."""
    height, width = x.shape[-2:]
    total = weights = torch.empty(0)
    for top in _starts(height, tile, stride):
        for left in _starts(width, tile, stride):
            piece = x[..., top : top + tile, left : left + tile]
            out = run(piece)
            if not total.numel():
                total = out.new_zeros(
                    *out.shape[:2], height * up // down, width * up // down, dtype=torch.float32
                )
                weights = torch.zeros_like(total[:1, :1])
            rows = _ramp(out.shape[-2], overlap, top == 0, top + tile >= height)
            cols = _ramp(out.shape[-1], overlap, left == 0, left + tile >= width)
            weight = (rows[:, None] * cols[None, :]).to(out.device)
            y, x0 = top * up // down, left * up // down
            window = (..., slice(y, y + out.shape[-2]), slice(x0, x0 + out.shape[-1]))
            total[window] += out.float() * weight
            weights[window] += weight
    return (total / weights).to(x.dtype)


def _check(tile: int, stride: int, ratio: int) -> None:
    if tile % ratio or stride % ratio or not 0 < stride <= tile:
        raise RequestError(
            f"tiles of {tile} px with stride {stride} px do not fit: both must be multiples of {ratio} "
            "and the stride at most the tile"
        )


def decode_tiled(model: Decodes, latent: Tensor, tile: int = 1024, stride: int = 896) -> Tensor:
    """Decode [B, C, h, w] tile by tile -> [B, 3, r*h, r*w].

    Args:
        model: the autoencoder, or its decoding half.
        latent: unscaled latents.
        tile: side of a tile in pixels, a multiple of the ratio r. Tiles under 1024 px can show seams in skies.
        stride: pixels from tile to tile; tile - stride is blended.

    Raises:
        RequestError: if tile or stride do not fit the ratio.
    """
    ratio = model.config.ratio
    _check(tile, stride, ratio)
    return _tiled(latent, model.decode, tile // ratio, stride // ratio, tile - stride, ratio, 1)


def encode_tiled(model: Encodes, pixels: Tensor, tile: int = 1024, stride: int = 896) -> Tensor:
    """Encode [B, 3, H, W] tile by tile -> [B, C, H/r, W/r].

    Args:
        model: the autoencoder, or its encoding half.
        pixels: in -1..1, H and W multiples of the ratio r.
        tile: side of a tile in pixels, a multiple of r.
        stride: pixels from tile to tile; tile - stride is blended.

    Raises:
        RequestError: if tile or stride do not fit the ratio.
    """
    ratio = model.config.ratio
    _check(tile, stride, ratio)
    return _tiled(pixels, model.encode, tile, stride, (tile - stride) // ratio, 1, ratio)


BAND = 1 << 26
"""Bytes of one inner map of a band, about."""


def in_bands(run: Callable[[Tensor], Tensor], x: Tensor, *, width: int, reach: int) -> Tensor:
    """`run(x)`, for a `run` that doubles the resolution and sees `reach` rows of its output to either side.

    Maps that fit one band, maps on other devices and maps that need a gradient run at once.

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
    """Return an empty [B, D, height, w] in the dtype and layout of a band."""
    size = (*band.shape[:2], height, band.shape[3])
    last = band.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty(size, dtype=band.dtype, memory_format=layout)
