"""Previews: a latent as a small picture, by a linear map from its channels to red, green and blue.

The map is fitted to the model's own encoder by least squares: a few synthetic pictures, their latents, and the mean
colour of the pixels under each position. That takes one pass of the encoder, once: it is kept in the data folder under
the fingerprint of the weights.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from torch import Tensor

from sanakit.base.files import atomic_write, ensure_writable_folder
from sanakit.base.json_text import read_object
from sanakit.pipeline.components import fingerprint
from sanakit.server.engine.stages import Prepared, Stages
from sanakit.toybox import render, sample_scene

EACH = 10
"""Pictures of either sort. Light and shade matter: fields of colour alone left the maps of Toybox twice the error."""

SIDE = 128
"""Pixels of a side: 16 positions of a latent, so 320 equations for 32 or fewer channels and a constant."""

LONGEST = 256
"""Pixels of the longer side of a preview."""

_CONTRAST = 0.6  # of the fields: full colours side by side are no picture, and encoders bend there
_QUALITY = 80  # of its JPEG: blurred as it is, it shows no artefacts
_RIDGE = 1e-4  # of the mean square of a channel: channels that the pictures do not move get no weight


class Previews:
    """Makes previews, in the worker's thread. folder: where maps are kept; OutputError if it can't be written."""

    def __init__(self, folder: Path, stages: Stages) -> None:
        self._folder, self._stages = ensure_writable_folder(folder), stages
        self._maps: dict[str, Tensor] = {}

    def jpeg(self, prepared: Prepared, latent: Tensor) -> bytes:
        """Return a latent [1, C, h, w] as a JPEG of the picture's shape."""
        return to_jpeg(apply_map(self._map(prepared), latent))

    def _map(self, prepared: Prepared) -> Tensor:
        if prepared.name not in self._maps:
            place = self._folder / f"{fingerprint(prepared.model.spec)}.json"
            found = read_map(place)
            if found is None:
                pixels = synthetic_pictures()
                found = fit_map(self._stages.encode(prepared, pixels), pixels)
                atomic_write(place, json.dumps({"map": found.tolist()}).encode())
            self._maps[prepared.name] = found
        return self._maps[prepared.name]


def synthetic_pictures() -> Tensor:
    """Make pictures [2 * EACH, 3, SIDE, SIDE] float32 in -1..1: soft fields of colour with boxes, and solids."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator) * 2 - 1

    soft = F.interpolate(random(EACH, 3, 5, 5), size=(SIDE, SIDE), mode="bicubic", align_corners=False)
    hard = F.interpolate(random(EACH, 3, 8, 8), size=(SIDE, SIDE), mode="nearest")
    boxes = F.interpolate(random(EACH, 1, 8, 8), size=(SIDE, SIDE), mode="nearest") > 0.4
    fields = torch.where(boxes, hard, soft).clamp(-1, 1) * _CONTRAST
    scenes = render([sample_scene(number) for number in range(EACH)], SIDE, samples=1) * 2 - 1
    return torch.cat([fields, scenes])


def fit_map(latents: Tensor, pixels: Tensor) -> Tensor:
    """Fit latents [B, C, h, w] to pixels [B, 3, H, W]: the map [C + 1, 3] float32, whose last row is the constant."""
    height, width = latents.shape[-2:]
    colours = F.adaptive_avg_pool2d(pixels.float(), (height, width))
    inputs, wanted = _rows(latents.float().cpu()), colours.permute(0, 2, 3, 1).reshape(-1, 3).cpu()
    square = inputs.T @ inputs
    ridge = _RIDGE * square.diagonal().mean() * torch.eye(len(square))
    ridge[-1, -1] = 0  # the constant is free
    solved: Tensor = torch.linalg.solve(square + ridge, inputs.T @ wanted)
    return solved


def apply_map(map: Tensor, latent: Tensor) -> Tensor:
    """Return a latent [1, C, h, w] as pixels [1, 3, h, w] in -1..1."""
    height, width = latent.shape[-2:]
    colours = _rows(latent.detach().float().cpu()) @ map
    return colours.reshape(1, height, width, 3).permute(0, 3, 1, 2).clamp(-1, 1)


def to_jpeg(pixels: Tensor) -> bytes:
    """Return pixels [1, 3, h, w] in -1..1 as a JPEG whose longer side is LONGEST, smoothly enlarged."""
    levels = ((pixels[0] * 0.5 + 0.5) * 255).round().to(torch.uint8)
    image = Image.fromarray(levels.permute(1, 2, 0).contiguous().numpy())
    scale = LONGEST / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    buffer = io.BytesIO()
    image.resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


def read_map(place: Path) -> Tensor | None:
    """Return the map in a file; None if there is none, or it is no map."""
    try:
        values: Any = read_object(place)["map"]
        found = torch.tensor(values, dtype=torch.float32)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if found.dim() == 2 and found.shape[1] == 3 and bool(found.isfinite().all()) else None


def _rows(latent: Tensor) -> Tensor:
    """Return [B, C, h, w] as [B * h * w, C + 1], whose last column is 1."""
    rows = latent.permute(0, 2, 3, 1).reshape(-1, latent.shape[1])
    return torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)
