"""From the network's maps to a list of objects: peaks of presence, and what is said there."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sanakit.toybox.grammar import MAX_OBJECTS
from sanakit.toybox.judging.network import CELLS, PLACE, WORDS, Judge, Maps

THRESHOLD = 0.4
_APART = 1.6  # cells: nearer peaks of one kind are one object seen twice


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
    """What a picture shows: its objects, the surest first, its floor and its light, and how sure those two are."""

    objects: tuple[Found, ...]
    floor: str
    light: str
    sure: dict[str, dict[str, float]]


@torch.no_grad()
def read(network: Judge, pictures: Tensor) -> tuple[list[Reading], Tensor]:
    """Readings of pictures [B, 3, 256, 256] in 0..1, and their features [B, C]."""
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
    """Whether two peaks are one object on the border of two cells."""
    near = (a.u - b.u) ** 2 + (a.v - b.v) ** 2 < (_APART / CELLS) ** 2
    return near and (a.shape, a.colour) == (b.shape, b.colour)


def _shares(logits: Tensor, known: tuple[str, ...]) -> dict[str, float]:
    return dict(zip(known, logits.float().softmax(0).tolist(), strict=True))
