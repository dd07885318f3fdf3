"""How a picture that is changed lies in what the transformer draws, and how the result gets back its size and pixels.

    source --margins--> canvas, the size of the result --scaled and padded--> drawn, the size of the latent

A canvas that nearly fills the drawn size is padded only; any other is scaled until it fits, and padded with the pixels
of its edges. What is kept comes back from the source itself, to the bit: no rounding of a decoder reaches it.
Letters: H/W pixels drawn, h/w latent position, r = pixels of a latent position along a side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from torch import Tensor

from sanakit.base.sizes import Size
from sanakit.pipeline.inputs import flattened

NEARLY = 1.1
"""A canvas is padded and not scaled if the drawn size is less than this factor larger."""

SEAM_SHARE = 64
"""The seam inside of a mask is this part of the shorter side wide, 4 pixels at 256."""

Box = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """The places of source, canvas and drawn picture.

    margins: left, top, right, bottom around the source, in its pixels. size: source and margins.
    drawn: what the transformer draws. content: left, top, right, bottom of the canvas in it.
    """

    margins: Box
    size: Size
    drawn: Size
    content: Box

    def placed(self, box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        """Return a box of the canvas (left, top, right, bottom) in pixels drawn."""
        left, top, right, bottom = self.content
        across, down = (right - left) / self.size.width, (bottom - top) / self.size.height
        return left + box[0] * across, top + box[1] * down, left + box[2] * across, top + box[3] * down


def place(source: Size, margins: Box, drawn: Size) -> Canvas:
    """Return the canvas of a source in a drawn size."""
    left, top, right, bottom = margins
    size = Size(source.width + left + right, source.height + top + bottom)
    scale = min(drawn.width / size.width, drawn.height / size.height)
    scale = 1.0 if 1 <= scale < NEARLY else scale
    width = min(drawn.width, max(1, round(size.width * scale)))
    height = min(drawn.height, max(1, round(size.height * scale)))
    x, y = (drawn.width - width) // 2, (drawn.height - height) // 2
    return Canvas(margins=margins, size=size, drawn=drawn, content=(x, y, x + width, y + height))


def to_drawn(canvas: Canvas, source: Image.Image) -> Tensor:
    """Return the source as the encoder reads it: [1, 3, H, W] in -1..1; what is transparent is white."""
    levels = (
        torch.from_numpy(np.array(flattened(source, "white").convert("RGB"))).permute(2, 0, 1)[None].float()
    )
    levels = _extended(levels, canvas.margins)
    left, top, right, bottom = canvas.content
    if levels.shape[-2:] != (bottom - top, right - left):
        levels = _resized(levels, Size(right - left, bottom - top)).clamp(0, 255)
    return _extended(levels, _rest(canvas)) / 127.5 - 1


def free_levels(canvas: Canvas, mask: Image.Image | None, ratio: int) -> Tensor:
    """Return the noise level below which each latent position may change, [1, 1, h, w] in 0..1; the margins are 1.

    mask: grey levels of the source's size; None keeps all of it. A position counts as its freest pixel: those that must
    stay are put back at the end.
    """
    levels = _on_canvas(canvas, mask)
    left, top, right, bottom = canvas.content
    levels = F.adaptive_max_pool2d(levels, (bottom - top, right - left))
    return F.max_pool2d(_extended(levels, _rest(canvas)), ratio)


def finish(
    canvas: Canvas, pixels: Tensor, source: Image.Image, mask: Image.Image | None, *, keeps: bool
) -> Image.Image:
    """Return the result at the canvas's size, RGB or RGBA as the source.

    Args:
        canvas: where all lies.
        pixels: what was drawn [1, 3, H, W] in -1..1.
        source: RGB or RGBA. Its alpha channel stays, and margins are opaque.
        mask: as in `free_levels`.
        keeps: whether pixels outside of mask and margins are the source's, to the bit; else all are new.
    """
    left, top, right, bottom = canvas.content
    drawn = ((pixels[..., top:bottom, left:right].float().cpu() * 0.5 + 0.5) * 255).clamp(0, 255)
    new = _resized(drawn, canvas.size).clamp(0, 255)[0].permute(1, 2, 0).numpy()
    old = _edge_padded(np.asarray(source), canvas.margins)
    rgb = _mixed(canvas, new, old[..., :3], mask) if keeps else np.rint(new).astype(np.uint8)
    if source.mode != "RGBA":
        return Image.fromarray(rgb)
    alpha = np.where(_inside(canvas), old[..., 3], 255).astype(np.uint8)
    return Image.fromarray(np.dstack([rgb, alpha]))


def _mixed(canvas: Canvas, new: np.ndarray, old: np.ndarray, mask: Image.Image | None) -> np.ndarray:
    """Blend new pixels inside of the mask, with a seam along its inner edge, into the old ones, kept as they are."""
    free = (_on_canvas(canvas, mask) > 0).float()
    weight = _seam(free, max(1, min(canvas.size.width, canvas.size.height) // SEAM_SHARE))[
        0, 0, :, :, None
    ].numpy()
    blended = np.rint(old + (new - old) * weight).clip(0, 255).astype(np.uint8)
    return np.where(free[0, 0, :, :, None].numpy() > 0, blended, old)


def _seam(free: Tensor, width: int) -> Tensor:
    """Weights [1, 1, H, W] that rise from 0 at the inner edge of what is free to 1 about `width` pixels inside."""
    padded = F.pad(free, (width,) * 4, mode="replicate")
    share = F.avg_pool2d(padded, 2 * width + 1, stride=1)  # half along a straight edge
    return (2 * share - 1).clamp(0, 1) * free


def _on_canvas(canvas: Canvas, mask: Image.Image | None) -> Tensor:
    """Return the mask with its margins, [1, 1, H, W] in 0..1 at the canvas's size."""
    left, top, right, bottom = canvas.margins
    size = (canvas.size.height - top - bottom, canvas.size.width - left - right)
    inner = torch.zeros(size) if mask is None else torch.from_numpy(np.asarray(mask) / np.float32(255))
    return F.pad(inner[None, None], (left, right, top, bottom), value=1.0)


def _inside(canvas: Canvas) -> np.ndarray:
    """Where the source lies on the canvas, [H, W] bool."""
    left, top, right, bottom = canvas.margins
    inside = np.zeros((canvas.size.height, canvas.size.width), bool)
    inside[top : canvas.size.height - bottom, left : canvas.size.width - right] = True
    return inside


def _rest(canvas: Canvas) -> Box:
    """Return what is drawn around the canvas: left, top, right, bottom."""
    left, top, right, bottom = canvas.content
    return left, top, canvas.drawn.width - right, canvas.drawn.height - bottom


def _edge_padded(pixels: np.ndarray, margins: Box) -> np.ndarray:
    left, top, right, bottom = margins
    return np.pad(pixels, ((top, bottom), (left, right), (0, 0)), mode="edge")


def _extended(pixels: Tensor, margins: Box) -> Tensor:
    """[1, C, H, W] with the pixels of its edges repeated."""
    left, top, right, bottom = margins
    return F.pad(pixels, (left, right, top, bottom), mode="replicate") if any(margins) else pixels


def _resized(pixels: Tensor, size: Size) -> Tensor:
    """[1, C, H, W] at another size, bicubic."""
    if pixels.shape[-2:] == (size.height, size.width):
        return pixels
    return F.interpolate(
        pixels, size=(size.height, size.width), mode="bicubic", align_corners=False, antialias=True
    )
