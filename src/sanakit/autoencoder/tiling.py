"""Large pictures in tiles: overlapping tiles, blended by linear ramps.

Every output position is the weighted mean of the tiles that cover it; a tile's weight falls linearly to its borders
inside the overlap. Memory is one tile's activations plus the accumulated picture.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from sanakit.autoencoder.config import AutoencoderConfig
from sanakit.autoencoder.model import DCAE
from sanakit.base.errors import RequestError


class Decodes(Protocol):
    """A `DCAE`, a `LatentDecoder`, or what runs one."""

    @property
    def config(self) -> AutoencoderConfig:
        """Of the autoencoder."""

    def decode(self, latent: Tensor) -> Tensor:
        """[B, C, h, w] -> pixels [B, 3, r*h, r*w]."""


def _starts(length: int, tile: int, stride: int) -> list[int]:
    """Where tiles begin so that they cover `length`; the last one is moved back to end with it."""
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


def encode_tiled(model: DCAE, pixels: Tensor, tile: int = 1024, stride: int = 896) -> Tensor:
    """Encode [B, 3, H, W] tile by tile -> [B, C, H/r, W/r]; arguments as in `decode_tiled`."""
    ratio = model.config.ratio
    _check(tile, stride, ratio)
    return _tiled(pixels, model.encode, tile, stride, (tile - stride) // ratio, 1, ratio)
