"""Scenes of the Toybox as pictures."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image

from sanakit.toybox import Scene, render


def rendered(scenes: Sequence[Scene], size: int = 256) -> list[Image.Image]:
    levels = (render(scenes, size) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    return [Image.fromarray(one.numpy()) for one in levels.contiguous()]
