"""What the flow's loss hardly pays for, taught by contrast: a scene under its own caption and under a false one.

The same scene and the same noise, once with its caption and once with a caption that is not true of it: what remains
is the worth of the words that differ. Left and right are worth a thousandth of the flow's loss, far below what noise
does to its gradient, and 17,000 steps did not find them; this does in 125.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import TypeVar

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from recipes.toybox_model import Captions
from sanakit.flow.path import LinearPath
from sanakit.toybox.captions import full_spec, parse, say
from sanakit.toybox.grammar import (
    COLOURS,
    FLOORS,
    INVERSE_RELATION,
    LIGHTS,
    MATERIALS,
    SHAPES,
    GroupSpec,
    Scene,
    SceneSpec,
    is_held_out,
)

T = TypeVar("T")
CONTRAST = 0.1
EVERY = 2  # steps
TIMES = (0.7, 0.98)  # where it is decided what stands where
GAP = 0.025  # of the loss: half of what front and behind are worth there
PAIRS = 8
HALF_TOLD = 0.5  # of the scenes of two shapes
RARE = 4  # how much more often a change is drawn that training makes little of: sides, and a thing only named


def contrasted(
    lines: Sequence[str], scenes: Sequence[Scene], draw: random.Random
) -> tuple[list[int], list[str]]:
    """`PAIRS` places in a batch, and 2 x `PAIRS` captions: those of the scenes there, then the false ones."""
    places, told = [], []
    for place, (line, scene) in enumerate(zip(lines, scenes, strict=True)):
        pair = true_and_false(line, scene, draw)
        if pair is not None and len(told) < PAIRS:
            places.append(place)
            told.append(pair)
    return places, [true for true, _ in told] + [false for _, false in told]


def true_and_false(line: str, scene: Scene, draw: random.Random) -> tuple[str, str] | None:
    """The caption and one whose change of a word makes it false of the scene, worded alike; None for an empty one."""
    if not line:
        return None
    spec, seed = parse(line), draw.random()
    if draw.random() < HALF_TOLD:
        spec = half_told(scene, draw) or spec
    false = (lie for lie in changes(spec, draw) if lie.relation != spec.relation or not shows(scene, lie))
    lies = [lie for lie in false if not is_held_out(lie)]  # no caption of any kind names what is held out
    told = draw.choice(lies) if lies else None
    return None if told is None else (say(spec, random.Random(seed)), say(told, random.Random(seed)))


def half_told(scene: Scene, draw: random.Random) -> SceneSpec | None:
    """Of a scene of two shapes, colour and material of one and the mere name of the other; None for other scenes.

    One caption of fifty is of this kind, too few to learn that the second thing is not another of the first.
    """
    groups = full_spec(scene).groups
    if len(scene.objects) != 2 or groups[0].shape == groups[-1].shape:
        return None
    told, named = draw.sample(groups, 2)
    return SceneSpec(groups=(replace(told, size=None), GroupSpec(shape=named.shape)))


def changes(spec: SceneSpec, draw: random.Random) -> Iterator[SceneSpec]:
    """What is one word away from a caption, some of it more than once: the words that training makes little of."""
    if spec.relation is not None:
        yield from [replace(spec, relation=INVERSE_RELATION[spec.relation])] * RARE
    if spec.floor is not None:
        yield replace(spec, floor=_other(spec.floor, FLOORS, draw))
    if spec.light is not None:
        yield replace(spec, light=_other(spec.light, LIGHTS, draw))
    for place, group in enumerate(spec.groups):
        around = [other.shape for other in spec.groups if other.shape != group.shape]
        for lie in _group_changes(group, around, draw):
            yield replace(spec, groups=(*spec.groups[:place], lie, *spec.groups[place + 1 :]))


def _group_changes(group: GroupSpec, around: list[str], draw: random.Random) -> Iterator[GroupSpec]:
    yield replace(group, shape=_other(group.shape, SHAPES, draw))
    if group.colour is None and group.material is None and around:
        yield from [replace(group, shape=draw.choice(around))] * RARE
    if group.colour is not None:
        yield replace(group, colour=_other(group.colour, COLOURS, draw))
    if group.material is not None:
        yield replace(group, material=_other(group.material, MATERIALS, draw))
    if group.count > 1:
        yield replace(group, count=_other(group.count, (2, 3, 4), draw))


def _other(word: T, words: Sequence[T], draw: random.Random) -> T:
    return draw.choice([other for other in words if other != word])


def shows(scene: Scene, spec: SceneSpec) -> bool:
    """Whether the scene has the things that a spec names, all of them and no others, on its floor in its light."""
    if spec.floor not in (None, scene.floor) or spec.light not in (None, scene.light):
        return False
    named = [group for group in spec.groups for _ in range(group.count)]
    return len(named) == len(scene.objects) and any(
        all(group.matches(item) for group, item in zip(named, order, strict=True))
        for order in permutations(scene.objects)
    )


@dataclass(frozen=True)
class TransformerBatch:
    """Latents x0 [B, C, h, w] with captions; and of some scenes x0 [P, C, h, w] with captions [2P], true then false.

    pairs: None in steps that contrast nothing.
    """

    x0: Tensor
    captions: Captions
    contrasted: Tensor
    pairs: Captions | None


def contrast(
    forward: Callable[..., tuple[Tensor, Tensor]],
    path: LinearPath,
    batch: TransformerBatch,
    generator: torch.Generator,
) -> Tensor:
    """How little better a scene is predicted with its own caption than with the false one, at the same noise."""
    if batch.pairs is None:
        return torch.zeros((), device=batch.x0.device)
    low, high = TIMES
    t = low + (high - low) * torch.rand(len(batch.contrasted), generator=generator).to(batch.x0.device)
    noise = torch.randn(batch.contrasted.shape, generator=generator).to(batch.x0.device)
    point, target = path.point(batch.contrasted, noise, t), path.target(batch.contrasted, noise, t)
    predicted, _ = forward(point.repeat(2, 1, 1, 1), (1000 * t).floor().repeat(2), batch.pairs)
    errors = (predicted.float() - target.repeat(2, 1, 1, 1)).square().mean((1, 2, 3))
    true, false = errors.chunk(2)
    return F.softplus((true - false) / GAP).mean()
