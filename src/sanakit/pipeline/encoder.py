"""The stage before drawing, for pictures that are changed: pixels to the latent of the source."""

from __future__ import annotations

import torch
from torch import Tensor

from sanakit.adapt.runner import unwrapped
from sanakit.autoencoder import encode_tiled
from sanakit.base.sentinel import run_finite
from sanakit.pipeline.components import LatentEncoding
from sanakit.pipeline.memory import encodes_in_tiles, total_bytes


@torch.no_grad()
def encode(encoder: LatentEncoding, pixels: Tensor) -> Tensor:
    """Encode [1, 3, H, W] in -1..1 to the latent [1, C, h, w] float32, scaled as the transformer sees it.

    In tiles if the picture is large. Raises NumericsError for NaN or Inf.
    """
    weight = next(encoder.parameters())
    pixels = pixels.to(weight.device, weight.dtype)
    height, width = pixels.shape[-2:]
    tiled = encodes_in_tiles(encoder.config, width, height, weight.dtype, total_bytes(weight.device))

    def run() -> Tensor:
        return encode_tiled(encoder, pixels) if tiled else encoder.encode(pixels)

    latent = run_finite(unwrapped(encoder), run, "encode")
    return latent.float() * float(encoder.config.scaling_factor)
