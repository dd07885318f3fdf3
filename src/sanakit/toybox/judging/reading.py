"""From the network's maps to a list of objects: peaks of presence, and the attributes there.

`accuracies` compares readings with the scenes that were rendered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sanakit.toybox.grammar import MAX_OBJECTS, Scene
from sanakit.toybox.judging.network import CELLS, PLACE, WORDS, Judge, Maps
from sanakit.toybox.judging.targets import middle_of

THRESHOLD = 0.4
_APART = 1.6  # cells: nearer peaks of one kind are one object seen twice

NEAR = 0.1  # of the width: a reading this near to an object's middle is a reading of that object


@dataclass(frozen=True, kw_only=True)
class Found:
    """One object that was read.

    (u, v): its middle in 0..1 from the top left corner. depth: world units behind the middle of the stage.
    presence: how sure its presence is, 0..1. sure: for each kind of word, the probability of every word.
    """

    shape: str
    colour: str
    material: str
    size: str
    u: float
    v: float
    depth: float
    presence: float
    sure: dict[str, dict[str, float]]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Contents of a picture: its objects, most certain first, its floor and light with their certainty."""

    objects: tuple[Found, ...]
    floor: str
    light: str
    sure: dict[str, dict[str, float]]


@torch.no_grad()
def read(network: Judge, pictures: Tensor) -> tuple[list[Reading], Tensor]:
    """Read pictures [B, 3, 256, 256] in 0..1; return their readings and features [B, C]."""
    maps = network(pictures)
    return [_reading(maps, row) for row in range(len(pictures))], maps.features.float()


def _reading(maps: Maps, row: int) -> Reading:
    heat = maps.presence[row].float().sigmoid()  # [G, G]
    peaks = heat * (heat == F.max_pool2d(heat[None, None], 3, 1, 1)[0, 0])
    found: list[Found] = []
    for cell in peaks.flatten().argsort(descending=True)[: 2 * MAX_OBJECTS].tolist():
        y, x = divmod(cell, CELLS)
        if float(peaks[y, x]) < THRESHOLD or len(found) > MAX_OBJECTS:
            break
        item = _found(maps, row, y, x, float(heat[y, x]))
        if not any(_same(item, other) for other in found):
            found.append(item)
    sure = {name: _shares(maps.place[name][row], known) for name, known in PLACE.items()}
    floor, light = (max(sure[name], key=sure[name].__getitem__) for name in PLACE)
    return Reading(objects=tuple(found), floor=floor, light=light, sure=sure)


def _found(maps: Maps, row: int, y: int, x: int, presence: float) -> Found:
    sure = {name: _shares(maps.words[name][row, :, y, x], known) for name, known in WORDS.items()}
    words = {name: max(shares, key=shares.__getitem__) for name, shares in sure.items()}
    right, down = maps.offset[row, :, y, x].tolist()
    return Found(
        **words,
        u=(x + right) / CELLS,
        v=(y + down) / CELLS,
        depth=float(maps.depth[row, y, x]),
        presence=presence,
        sure=sure,
    )


def _same(a: Found, b: Found) -> bool:
    """Return whether two peaks are one object on the border of two cells."""
    near = (a.u - b.u) ** 2 + (a.v - b.v) ** 2 < (_APART / CELLS) ** 2
    return near and (a.shape, a.colour) == (b.shape, b.colour)


def _shares(logits: Tensor, known: tuple[str, ...]) -> dict[str, float]:
    return dict(zip(known, logits.float().softmax(0).tolist(), strict=True))


def accuracies(scenes: Sequence[Scene], readings: Sequence[Reading]) -> dict[str, tuple[int, int]]:
    """attribute -> (right, of how many).

    `objects`: pictures with every object found and none besides. `shape` ... `size`: of the objects found.
    `position`: objects found within a tenth of the width, of all there are. `floor`, `light`: of pictures.
    """
    tally = {name: [0, 0] for name in ("objects", "position", *WORDS, *PLACE)}
    for scene, reading in zip(scenes, readings, strict=True):
        pairs = _paired(scene, reading.objects)
        _count(tally, "objects", len(reading.objects) == len(scene.objects) and None not in pairs)
        for item, found in zip(scene.objects, pairs, strict=True):
            _count(tally, "position", found is not None)
            for name in WORDS if found is not None else ():
                _count(tally, name, getattr(item, name) == getattr(found, name))
        for name in PLACE:
            _count(tally, name, getattr(scene, name) == getattr(reading, name))
    return {name: (right, of) for name, (right, of) in tally.items()}


def _count(tally: dict[str, list[int]], name: str, right: bool) -> None:
    tally[name][0] += right
    tally[name][1] += 1


def _paired(scene: Scene, objects: tuple[Found, ...]) -> list[Found | None]:
    """For each object of the scene the reading of it, or None; by the assignment with the least distances."""
    middles = [middle_of(scene, item) for item in scene.objects]
    seats: list[Found | None] = [*objects, *[None] * len(middles)]

    def cost(seating: tuple[Found | None, ...]) -> float:
        return sum(_distance(m, s) for m, s in zip(middles, seating, strict=True))

    best = min(permutations(seats[: len(middles) + len(objects)], len(middles)), key=cost)
    return [s if _distance(m, s) < NEAR else None for m, s in zip(middles, best, strict=True)]


def _distance(middle: tuple[float, float], found: Found | None) -> float:
    if found is None:
        return NEAR
    return min(NEAR, float(((middle[0] - found.u) ** 2 + (middle[1] - found.v) ** 2) ** 0.5))
