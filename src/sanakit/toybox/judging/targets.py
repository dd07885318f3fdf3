"""Training targets of the judge: the maps that its network should produce, made from the scene itself."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sanakit.toybox.camera import camera_of, project
from sanakit.toybox.grammar import Scene, SceneObject
from sanakit.toybox.judging.network import CELLS, PLACE, WORDS
from sanakit.toybox.shapes import half_height

MIDDLE = 7.2  # of the stage, along z
_SPREAD = 0.5  # cells, of the bump around a middle


class Targets(NamedTuple):
    """heat [B, G, G] is 1 at middles and falls off around them; peak [B, G, G] marks them; the rest as in `Maps`."""

    heat: Tensor
    peak: Tensor
    words: dict[str, Tensor]
    offset: Tensor
    depth: Tensor
    place: dict[str, Tensor]


def middle_of(scene: Scene, item: SceneObject) -> tuple[float, float]:
    """Where an object's middle is seen: (u, v) in 0..1 from the top left corner."""
    u, v, _ = project(camera_of(scene), (item.x, half_height(item), item.z))
    return (u + 1) / 2, (1 - v) / 2


def targets_of(scenes: list[Scene], flipped: bool = False) -> Targets:
    """Return the maps of several scenes; `flipped` for pictures mirrored left to right."""
    size = (len(scenes), CELLS, CELLS)
    maps = Targets(
        heat=torch.zeros(size),
        peak=torch.zeros(size, dtype=torch.bool),
        words={name: torch.zeros(size, dtype=torch.long) for name in WORDS},
        offset=torch.zeros(len(scenes), 2, CELLS, CELLS),
        depth=torch.zeros(size),
        place={
            name: torch.tensor([known.index(getattr(scene, name)) for scene in scenes])
            for name, known in PLACE.items()
        },
    )
    for row, scene in enumerate(scenes):
        for item in scene.objects:
            _mark(maps, row, item, *middle_of(scene, item), flipped)
    return maps


def _mark(maps: Targets, row: int, item: SceneObject, u: float, v: float, flipped: bool) -> None:
    u = (1 - u if flipped else u) * CELLS
    v *= CELLS
    x, y = (min(max(int(part), 0), CELLS - 1) for part in (u, v))
    grid = torch.arange(CELLS, dtype=torch.float32) + 0.5
    bump = torch.exp(-((grid - u)[None, :].square() + (grid - v)[:, None].square()) / (2 * _SPREAD**2))
    maps.heat[row] = torch.maximum(maps.heat[row], bump)
    maps.heat[row, y, x] = 1.0
    maps.peak[row, y, x] = True
    maps.offset[row, :, y, x] = torch.tensor([u - x, v - y])
    maps.depth[row, y, x] = item.z - MIDDLE
    for name, known in WORDS.items():
        maps.words[name][row, y, x] = known.index(getattr(item, name))
