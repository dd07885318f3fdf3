"""Toybox scenes as tensors, for a training that keeps all of its data in the memory of one GPU.

Drawing a scene's numbers and saying it in words is the work of CPU cores (`read_scenes`), rendering is the GPU's
(`render_pictures`): 100,000 pictures of 256 px are 20 GB there, and take it seconds.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recipes.toybox_alignment import Cells, cells_of
from recipes.toybox_contrast import mirrored
from recipes.toybox_model import MODEL, Captions, read_captions, shows_two, uneven_caption
from sanakit.base.files import atomic_write
from sanakit.base.json_text import parse_json
from sanakit.text import load_tokenizer
from sanakit.toybox.camera import screen_points
from sanakit.toybox.captions import caption
from sanakit.toybox.folder import worker_pool
from sanakit.toybox.grammar import MAX_OBJECTS, Scene
from sanakit.toybox.packing import pack
from sanakit.toybox.render import GAMMA, cast_rays
from sanakit.toybox.sampling import sample_scene

CAPTIONS = 6
"""Of each scene; every one says another part of it."""
UNEVEN = 2
"""Of these, of scenes of two shapes, which say all of one thing and only the shape of the other."""
PIECE = 500  # scenes that a process reads at once
CHUNK = 16  # scenes that are rendered at once


@dataclass(frozen=True)
class SceneTensors:
    """n scenes with V captions each.

    Attributes:
        world, objects: [n, W] and [n, K, P], what the ray caster reads.
        ids: int16 [n, V, L], tokens of the captions. lengths: uint8 [n, V], how many are real.
        spot, place: int16 [n, V], see `Captions`.
        sided: int16 [n], the number of a caption that says left or right, else -1. The last caption is that one,
            mirrored.
        things, places: int8, see `Cells`.
        two: bool [n], whether a scene shows two objects of different shapes.
    """

    world: Tensor
    objects: Tensor
    ids: Tensor
    lengths: Tensor
    spot: Tensor
    place: Tensor
    sided: Tensor
    things: Tensor
    places: Tensor
    two: Tensor

    def __len__(self) -> int:
        return len(self.world)

    def map(self, change: Callable[[Tensor], Tensor]) -> SceneTensors:
        """The same with every tensor changed."""
        return SceneTensors(**{field.name: change(getattr(self, field.name)) for field in fields(self)})

    def captions(self, rows: Tensor, variant: Tensor, words: Tensor) -> Captions:
        """Captions of some scenes [B], of each the one with the number `variant` [B]; words: see `Captions`."""
        ids = self.ids[rows, variant].long()
        mask = torch.arange(ids.shape[1], device=ids.device) < self.lengths[rows, variant, None]
        return Captions(ids, mask, self.spot[rows, variant].long(), self.place[rows, variant].long(), words)

    def cells(self, rows: Tensor) -> Cells:
        """What the cells of some scenes show."""
        return Cells(self.things[rows], self.places[rows])


def sample_lines(first: int, count: int) -> list[str]:
    """Training scenes by their numbers, as lines of JSON."""
    return [json.dumps(sample_scene(number, "train").to_json()) for number in range(first, first + count)]


@contextmanager
def mapping(workers: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """`map`, with several processes if there is to be more than one."""
    if workers <= 1:
        yield map
        return
    with worker_pool(workers) as pool:
        yield pool.map


def write_scenes(path: Path, count: int, workers: int) -> None:
    """Sample training scenes with `workers` processes, ten milliseconds of a core each; the file appears whole."""
    starts = range(0, count, PIECE)

    def write(draft: Path) -> None:
        with mapping(workers) as mapped, gzip.open(draft, "wt", encoding="utf-8") as file:
            for lines in mapped(sample_lines, starts, (min(PIECE, count - start) for start in starts)):
                file.writelines(line + "\n" for line in lines)

    atomic_write(path, write)


def read_scenes(path: Path, count: int | None, workers: int, captions: int = CAPTIONS) -> SceneTensors:
    """The first scenes of a file as tensors, with `workers` processes; None for all. captions: of each scene."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        lines = file.read().splitlines()[:count]
    pieces = [lines[start : start + PIECE] for start in range(0, len(lines), PIECE)]
    with mapping(workers) as mapped:
        read = partial(_arrays_of_lines, captions=captions)
        found = list(mapped(read, pieces, range(0, len(lines), PIECE)))
    return SceneTensors(*(torch.from_numpy(np.concatenate(parts)) for parts in zip(*found, strict=True)))


def _arrays_of_lines(lines: Sequence[str], first: int, captions: int) -> list[np.ndarray]:
    """What `tensors_of` makes of lines of JSON; arrays, since each tensor between processes is an open file."""
    found = tensors_of([Scene.from_json(parse_json(line)) for line in lines], first, captions)
    return [getattr(found, field.name).numpy() for field in fields(found)]


def tensors_of(scenes: Sequence[Scene], first: int = 0, captions: int = CAPTIONS) -> SceneTensors:
    """Scenes as tensors; numbers, counted from `first`, seed what the captions say."""
    lines = [
        [_told(scene, (first + row) * CAPTIONS + variant, variant) for variant in range(captions)]
        for row, scene in enumerate(scenes)
    ]
    sided = [next((i for i, line in enumerate(some) if mirrored(line) != line), -1) for some in lines]
    with_mirrored = [
        [*some, mirrored(some[number])] if some else [] for some, number in zip(lines, sided, strict=True)
    ]
    world, objects = pack(scenes, least=MAX_OBJECTS)
    cells = cells_of(scenes)
    two = torch.tensor([shows_two(scene) for scene in scenes])
    numbers = torch.tensor(sided, dtype=torch.int16)
    return SceneTensors(world, objects, *_read_lines(with_mirrored), numbers, cells.things, cells.places, two)


def _told(scene: Scene, seed: int, variant: int) -> str:
    """A caption of a scene; the first ones of two shapes are uneven."""
    uneven = variant < UNEVEN and shows_two(scene)
    return (uneven_caption if uneven else caption)(scene, random.Random(seed))


def _read_lines(lines: list[list[str]]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Captions of scenes [n][V] as ids [n, V, L], lengths, spots and places [n, V]."""
    count, variants = len(lines), len(lines[0])
    if not variants:
        none = torch.empty(count, 0, dtype=torch.int16)
        return none[..., None], none.to(torch.uint8), none, none
    read = read_captions(load_tokenizer(MODEL / "tokenizer"), [line for some in lines for line in some])
    ids, lengths = read.ids.to(torch.int16), read.mask.sum(1).to(torch.uint8)
    spot, place = read.spot.to(torch.int16), read.place.to(torch.int16)
    return (
        ids.unflatten(0, (count, variants)), *(x.view(count, variants) for x in (lengths, spot, place))
    )  # fmt: skip


@torch.no_grad()
def render_pictures(
    scenes: SceneTensors, size: int, samples: int = 2, compiled: bool = True
) -> Iterator[Tensor]:
    """Render scenes where their tensors are: uint8 [n, 3, size, size] of some at a time, in their order.

    The same pictures as `sanakit.toybox.render` draws, to the rounding of the device.
    """
    cast = _compiled_cast() if compiled else cast_rays
    u, v = (axis[None].to(scenes.world.device) for axis in screen_points(size * samples, size * samples))
    for start in range(0, len(scenes), CHUNK):
        # The last chunk is filled up with the last scene: a graph is compiled for one number of scenes.
        rows = torch.arange(start, start + CHUNK).clamp(max=len(scenes) - 1).to(scenes.world.device)
        light = cast(u, v, scenes.world[rows], scenes.objects[rows])  # [B, 3, R]
        linear = light.view(CHUNK, 3, size, samples, size, samples).mean(dim=(3, 5))
        levels = linear.clamp_(0, 1).pow_(1 / GAMMA).mul_(255).round_().to(torch.uint8)
        yield levels[: len(scenes) - start]


@cache
def _compiled_cast() -> Callable[..., Tensor]:
    compiled: Callable[..., Tensor] = torch.compile(cast_rays, dynamic=False)
    return compiled
