"""The judge's network: 256 px pictures in, a 16 x 16 map of what stands where out (as CenterNet, arXiv 1904.07850).

Each cell predicts whether an object's centre is in it, and its attributes; the whole picture predicts floor and
light.
Letters: B batch, G = 16 cells a side, C channels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from torch import Tensor, nn

from sanakit.toybox.grammar import COLOURS, FLOORS, LIGHTS, MATERIALS, SHAPES, SIZES

SIZE, CELLS = 256, 16
WORDS = {"shape": SHAPES, "colour": COLOURS, "material": MATERIALS, "size": SIZES}
PLACE = {"floor": FLOORS, "light": LIGHTS}
_WIDTHS, _DEPTHS = (32, 64, 112), (1, 2, 4)


class Maps(NamedTuple):
    """The network's output, as logits.

    presence [B, G, G]; words[name] [B, classes, G, G]; offset [B, 2, G, G], the middle (u, v) within its cell in 0..1;
    depth [B, G, G], distance from the middle of the stage in world units; place[name] [B, classes];
    features [B, C], for distances between sets of pictures.
    """

    presence: Tensor
    words: dict[str, Tensor]
    offset: Tensor
    depth: Tensor
    place: dict[str, Tensor]
    features: Tensor


class Mixer(nn.Module):
    """Depthwise 7x7, then an MLP of four times the width, around a residual (as ConvNeXt, arXiv 2201.03545)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.GroupNorm(1, width)
        self.expand = nn.Conv2d(width, 4 * width, 1)
        self.project = nn.Conv2d(4 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> the same."""
        out: Tensor = x + self.project(F.gelu(self.expand(self.norm(self.spatial(x)))))
        return out


class Judge(nn.Module):
    """About half a million parameters; see `read` for its use."""

    def __init__(self) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        before, stride = 3, 4
        for width, depth in zip(_WIDTHS, _DEPTHS, strict=True):
            stages.append(nn.Conv2d(before, width, stride + 1, stride, padding=stride // 2))
            stages += [nn.GroupNorm(1, width), *(Mixer(width) for _ in range(depth))]
            before, stride = width, 2
        self.trunk = nn.Sequential(*stages)
        self.norm = nn.GroupNorm(1, before)
        self.cells = nn.Conv2d(before, 1 + 2 + 1 + sum(map(len, WORDS.values())), 1)
        self.place = nn.Linear(before, sum(map(len, PLACE.values())))
        assert self.cells.bias is not None
        nn.init.constant_(self.cells.bias[:1], -4.0)  # most cells are empty

    def forward(self, pictures: Tensor) -> Maps:
        """pictures: [B, 3, 256, 256] in 0..1."""
        x = self.norm(self.trunk(pictures * 2 - 1))  # [B, C, G, G]
        features = x.mean((2, 3))
        presence, offset, depth, *words = self.cells(x).split([1, 2, 1, *map(len, WORDS.values())], dim=1)
        place = self.place(features).split([*map(len, PLACE.values())], dim=1)
        return Maps(
            presence=presence[:, 0],
            words=dict(zip(WORDS, words, strict=True)),
            offset=offset,
            depth=depth[:, 0],
            place=dict(zip(PLACE, place, strict=True)),
            features=features,
        )


def fit(pictures: Tensor) -> Tensor:
    """[B, 3, H, W] -> [B, 3, 256, 256], by area where it shrinks, bilinear where it grows."""
    if pictures.shape[-2:] == (SIZE, SIZE):
        return pictures
    if min(pictures.shape[-2:]) >= SIZE:
        return F.interpolate(pictures, (SIZE, SIZE), mode="area")
    return F.interpolate(pictures, (SIZE, SIZE), mode="bilinear", antialias=True).clamp(0, 1)


def stack(pictures: list[Tensor]) -> Tensor:
    """uint8 or float pictures [3, H, W] of one size -> [B, 3, 256, 256] in 0..1."""
    batch = torch.stack(pictures)
    return fit(batch.float() / 255 if batch.dtype == torch.uint8 else batch.float())


def judge_input(image: Image.Image) -> Tensor:
    """Return an image as the judge reads it: [1, 3, 256, 256] in 0..1."""
    return stack([torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1)])
