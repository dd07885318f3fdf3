"""Prompts to judge a model by: GenEval's six categories (arXiv 2310.11513) in the words of the Toybox world.

Every prompt names objects in a combination of attributes that no training scene contains (`grammar.is_held_out`), so
none can have been learnt by heart. Floor and light, where they are named, are drawn evenly: pairs that training lacks
are as frequent as they are in the world, one prompt of twelve.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from sanakit.toybox.captions import say
from sanakit.toybox.grammar import (
    COLOURS,
    FLOORS,
    LIGHTS,
    MATERIALS,
    RELATIONS,
    SHAPES,
    SIZES,
    GroupSpec,
    SceneSpec,
    is_held_out,
)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A prompt, what it says, and the ability that it asks for."""

    category: str
    prompt: str
    spec: SceneSpec


def trials(count: int, seed: int = 0) -> list[Trial]:
    """`count` prompts, spread evenly over the categories in turn; the same for the same seed."""
    names = list(CATEGORIES)
    found: list[Trial] = []
    for index in range(count):
        category = names[index % len(names)]
        draw = random.Random(f"trial-{seed}-{index}")
        spec = CATEGORIES[category](draw)
        while not is_held_out(replace(spec, floor=None, light=None)):
            spec = CATEGORIES[category](draw)
        found.append(Trial(category=category, prompt=say(spec, draw), spec=spec))
    return found


def _single_object(draw: random.Random) -> SceneSpec:
    return SceneSpec(groups=(_thing(draw, size=draw.choice(SIZES)),), **_place(draw))


def _two_objects(draw: random.Random) -> SceneSpec:
    first, second = draw.sample(SHAPES, 2)
    place = _place(draw) if draw.random() < 0.5 else {}
    return SceneSpec(groups=(_thing(draw, shape=first), GroupSpec(shape=second)), **place)


def _counting(draw: random.Random) -> SceneSpec:
    group = GroupSpec(shape=draw.choice(SHAPES), colour=draw.choice(COLOURS), count=draw.choice((2, 3, 4)))
    return SceneSpec(groups=(group,))


def _colors(draw: random.Random) -> SceneSpec:
    return SceneSpec(groups=(_thing(draw),))


def _thing(draw: random.Random, shape: str | None = None, size: str | None = None) -> GroupSpec:
    colour, material = draw.choice(COLOURS), draw.choice(MATERIALS)
    return GroupSpec(shape=shape or draw.choice(SHAPES), colour=colour, material=material, size=size)


def _place(draw: random.Random) -> dict[str, str]:
    return {"floor": draw.choice(FLOORS), "light": draw.choice(LIGHTS)}


def _pair(draw: random.Random) -> tuple[GroupSpec, GroupSpec]:
    shapes, colours = draw.sample(SHAPES, 2), draw.sample(COLOURS, 2)
    return (
        GroupSpec(shape=shapes[0], colour=colours[0]),
        GroupSpec(shape=shapes[1], colour=colours[1]),
    )


def _position(draw: random.Random) -> SceneSpec:
    return SceneSpec(groups=_pair(draw), relation=draw.choice(RELATIONS))


def _color_attribution(draw: random.Random) -> SceneSpec:
    return SceneSpec(groups=_pair(draw))


CATEGORIES: dict[str, Callable[[random.Random], SceneSpec]] = {
    "single_object": _single_object,
    "two_objects": _two_objects,
    "counting": _counting,
    "colors": _colors,
    "position": _position,
    "color_attribution": _color_attribution,
}
