"""Prompts to judge a model by: GenEval's six categories (arXiv 2310.11513) in the words of the Toybox world.

Every prompt asks for something unseen, so none can have been learnt by heart. Those of `trials` name objects in a
combination of attributes that no training scene contains (`grammar.is_held_out`). Floor and light, where they are
named, are drawn evenly: pairs that training lacks are as frequent as they are in the world, one prompt of twelve.
Those of `phrasings` name combinations that training has, in a phrasing that no training caption has (`wording`).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from sanakit.toybox.captions import phrase, plain_things
from sanakit.toybox.grammar import (
    COLOURS,
    FLOORS,
    LIGHTS,
    MATERIALS,
    NEXT_TO,
    RELATIONS,
    SHAPES,
    SIZES,
    GroupSpec,
    SceneSpec,
    is_held_out,
)
from sanakit.toybox.wording import wording

# The words of `trials`, which stay as they are: figures of different models are of the same prompts.
_FLOORS = {
    "grass": ("on grass", "on a lawn"),
    "sand": ("on sand", "on a sandy beach"),
    "snow": ("on snow", "in the snow"),
    "wood": ("on wood", "on a wooden floor"),
    "tiles": ("on tiles", "on a tiled floor"),
    "water": ("on water", "on the sea"),
}
_LIGHTS = {
    "noon": ("at noon", "in daylight"),
    "sunset": ("at sunset", "in evening light"),
    "night": ("at night", "in moonlight"),
    "overcast": ("under an overcast sky", "on a cloudy day"),
}
_RELATIONS = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "in front of": ("in front of",),
    "behind": ("behind",),
}
_OPENINGS = ("", "a picture of ", "a scene with ")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A prompt, what it says, the ability that it asks for, and what of it training lacks."""

    category: str
    prompt: str
    spec: SceneSpec
    unseen: Literal["combination", "phrasing"] = "combination"


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
        found.append(Trial(category=category, prompt=_said(spec, draw), spec=spec))
    return found


def phrasings(count: int, seed: int = 0) -> list[Trial]:
    """`count` prompts as people type them, spread evenly over the categories in turn; the same for the same seed."""
    names = list(CATEGORIES)
    return [_phrasing(names[k % len(names)], random.Random(f"phrasing-{seed}-{k}")) for k in range(count)]


def _phrasing(category: str, draw: random.Random) -> Trial:
    while True:
        spec = CATEGORIES[category](draw)
        if spec.relation is not None and draw.random() < 0.2:
            spec = replace(spec, relation=NEXT_TO)
        said = wording(spec, draw)
        if said.held_out and not is_held_out(spec):
            return Trial(category=category, prompt=said.text, spec=spec, unseen="phrasing")


def _said(spec: SceneSpec, draw: random.Random) -> str:
    """Return mostly the plain caption, else one with other words, an opening, or floor and light elsewhere."""
    if draw.random() < 0.6:
        return phrase(spec)
    floor = draw.choice(_FLOORS[spec.floor]) if spec.floor else ""
    light = draw.choice(_LIGHTS[spec.light]) if spec.light else ""
    relation = draw.choice(_RELATIONS[spec.relation]) if spec.relation else ""
    things = draw.choice(_OPENINGS) + plain_things(spec, relation)
    place = [part for part in (floor, light) if part]
    draw.shuffle(place)
    if place and draw.random() < 0.35:
        return f"{' '.join(place)}, {things}"
    return " ".join([things, *place])


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
