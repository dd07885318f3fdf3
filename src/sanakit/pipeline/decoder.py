"""Stage three: from the latent to an image of the size that was asked for.

Letters: C latent channels, h/w latent position, H/W pixels drawn, which may be more than the size asked for.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from torch import Tensor

from sanakit.adapt.runner import unwrapped
from sanakit.autoencoder import decode_tiled
from sanakit.base.sentinel import run_finite
from sanakit.base.sizes import Size
from sanakit.pipeline.canvas import finish
from sanakit.pipeline.components import Autoencoder
from sanakit.pipeline.memory import needs_tiles, total_bytes
from sanakit.pipeline.plan import Plan


@torch.no_grad()
def decode(autoencoder: Autoencoder, latent: Tensor, size: Size) -> Tensor:
    """Decode [1, C, h, w] to pixels [1, 3, height, width] float32, about -1..1; raise NumericsError for NaN or Inf."""
    weight = next(autoencoder.parameters())
    unscaled = (latent / autoencoder.config.scaling_factor).to(weight.device, weight.dtype)
    pixels = run_finite(
        unwrapped(autoencoder), lambda: decode_latent(autoencoder, unscaled), "decode"
    ).float()
    return fit(pixels, size.width, size.height)


def decode_latent(autoencoder: Autoencoder, latent: Tensor) -> Tensor:
    """Decode an unscaled [1, C, h, w] to [1, 3, H, W], in tiles if large or if a GPU has no memory for the whole."""
    height, width = (side * autoencoder.config.ratio for side in latent.shape[-2:])
    total = total_bytes(latent.device)
    if needs_tiles(autoencoder.config, width, height, latent.dtype, total, latent.device.type):
        return decode_tiled(autoencoder, latent)
    try:
        return autoencoder.decode(latent)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
    return decode_tiled(autoencoder, latent, tile=512, stride=384)


def fit(pixels: Tensor, width: int, height: int) -> Tensor:
    """Scale [B, 3, H, W] until both sides cover the size (bilinear), and crop the centre: [B, 3, height, width].

    The scaled size is cut to whole pixels as in diffusers, but never below the size asked for: there a rounding
    error can lose a pixel, and then most of the image.
    """
    have_height, have_width = pixels.shape[-2:]
    if (have_height, have_width) == (height, width):
        return pixels
    ratio = max(height / have_height, width / have_width)
    size = (max(int(have_height * ratio), height), max(int(have_width * ratio), width))
    pixels = F.interpolate(pixels, size=size, mode="bilinear", align_corners=False)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return pixels[..., top : top + height, left : left + width]


def to_image(pixels: Tensor) -> Image.Image:
    """Return pixels [1, 3, H, W] in -1..1 as an RGB image, rounded to the nearest of 256 levels."""
    levels = ((pixels[0] * 0.5 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).contiguous().cpu().numpy())


def to_picture(plan: Plan, pixels: Tensor) -> Image.Image:
    """Return pixels [1, 3, H, W] of the size `plan.decoded` as the image of a plan; of an edit, with what it keeps."""
    edit = plan.edit
    if edit is None:
        return to_image(pixels)
    return finish(edit.canvas, pixels, edit.source, edit.mask, keeps=edit.keeps)
