"""Scenes into words and words into scenes.

A caption is `things [on floor] [light]` in one of a few orders. It names only what a scene shows, may leave out
anything but shapes, and `parse` recovers exactly what was said.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import replace

from sanakit.base.errors import RequestError
from sanakit.toybox.grammar import (
    COLOURS,
    INVERSE_RELATION,
    MATERIALS,
    SHAPES,
    SIZES,
    GroupSpec,
    Scene,
    SceneSpec,
    groups_of,
)
from sanakit.toybox.sampling import relation_between

# The first phrase of each is the plain one.
FLOOR_PHRASES = {
    "grass": ("on grass", "on a lawn"),
    "sand": ("on sand", "on a sandy beach"),
    "snow": ("on snow", "in the snow"),
    "wood": ("on wood", "on a wooden floor"),
    "tiles": ("on tiles", "on a tiled floor"),
    "water": ("on water", "on the sea"),
}
LIGHT_PHRASES = {
    "noon": ("at noon", "in daylight"),
    "sunset": ("at sunset", "in evening light"),
    "night": ("at night", "in moonlight"),
    "overcast": ("under an overcast sky", "on a cloudy day"),
}
RELATION_PHRASES = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "in front of": ("in front of",),
    "behind": ("behind",),
}
OPENINGS = ("", "a picture of ", "a scene with ")
NUMBERS = ("no", "one", "two", "three", "four")


def caption(scene: Scene, draw: random.Random) -> str:
    """One caption of the scene: at times the whole truth in plain order, else with parts left out or said otherwise."""
    spec = full_spec(scene)
    if spec.relation is not None and draw.random() < 0.5:
        spec = turned(spec)
    if draw.random() < 0.65:
        spec = shortened(spec, draw)
    return say(spec, draw)


def say(spec: SceneSpec, draw: random.Random) -> str:
    """The plain caption of a spec more often than not, else another way to say the same."""
    return phrase(spec) if draw.random() < 0.6 else _varied(spec, draw)


def captions(scene: Scene) -> list[str]:
    """Several captions of one scene: whole, turned round, bare shapes, and each phrase of floor and light."""
    spec = full_spec(scene)
    bare = replace(
        spec,
        floor=None,
        light=None,
        groups=tuple(GroupSpec(shape=g.shape, count=g.count) for g in spec.groups),
    )
    coloured = replace(spec, groups=tuple(replace(g, material=None, size=None) for g in spec.groups))
    specs = [spec, coloured, replace(spec, light=None), replace(spec, floor=None), _told_apart(bare)]
    specs += [turned(spec)] if spec.relation else []
    said = [phrase(s) for s in specs]
    said += [_varied(spec, random.Random(seed)) for seed in range(4)]
    return list(dict.fromkeys(said))


def full_spec(scene: Scene) -> SceneSpec:
    """Everything there is to say about a scene; the relation only where two objects leave no doubt about it."""
    groups = groups_of(scene)
    relation = relation_between(scene) if len(scene.objects) == len(groups) == 2 else None
    return SceneSpec(groups=groups, relation=relation, floor=scene.floor, light=scene.light)


def turned(spec: SceneSpec) -> SceneSpec:
    """The same said from the second object's side: "b right of a" for "a left of b"."""
    first, second = spec.groups
    return replace(spec, groups=(second, first), relation=INVERSE_RELATION[spec.relation or ""])


def shortened(spec: SceneSpec, draw: random.Random) -> SceneSpec:
    """Less of the truth: floor, light, attributes and now and then the relation are left out.

    A kind of attribute goes for all things alike or, as often, thing by thing: "a red rubber cube and a sphere".
    """
    together, alike = _dropped(draw), draw.random() < 0.5
    groups = tuple(_without(group, together if alike else _dropped(draw)) for group in spec.groups)
    floor = spec.floor if draw.random() < 0.5 else None
    light = spec.light if draw.random() < 0.5 else None
    relation = spec.relation if draw.random() < 0.75 else None
    return _told_apart(replace(spec, groups=groups, relation=relation, floor=floor, light=light))


def _dropped(draw: random.Random) -> set[str]:
    return {name for name in ("colour", "material", "size") if draw.random() < 0.45}


def _without(group: GroupSpec, drop: set[str]) -> GroupSpec:
    return replace(
        group,
        colour=None if "colour" in drop else group.colour,
        material=None if "material" in drop else group.material,
        size=None if "size" in drop else group.size,
    )


def _told_apart(spec: SceneSpec) -> SceneSpec:
    """Groups that now read the same are joined: two different cubes without their colours are two cubes."""
    joined: dict[GroupSpec, int] = {}
    for group in spec.groups:
        key = replace(group, count=1)
        joined[key] = joined.get(key, 0) + group.count
    if len(joined) == len(spec.groups):
        return spec
    return replace(spec, groups=tuple(replace(key, count=n) for key, n in joined.items()), relation=None)


def phrase(spec: SceneSpec) -> str:
    """The plain caption: "a large red metal sphere left of a small blue rubber cube on grass at sunset"."""
    floor = FLOOR_PHRASES[spec.floor][0] if spec.floor else ""
    light = LIGHT_PHRASES[spec.light][0] if spec.light else ""
    return " ".join(part for part in (_things(spec, spec.relation or ""), floor, light) if part)


def _varied(spec: SceneSpec, draw: random.Random) -> str:
    """Another way to say it: other words, an opening, floor and light in another place."""
    floor = draw.choice(FLOOR_PHRASES[spec.floor]) if spec.floor else ""
    light = draw.choice(LIGHT_PHRASES[spec.light]) if spec.light else ""
    relation = draw.choice(RELATION_PHRASES[spec.relation]) if spec.relation else ""
    things = draw.choice(OPENINGS) + _things(spec, relation)
    place = [part for part in (floor, light) if part]
    draw.shuffle(place)
    if place and draw.random() < 0.35:
        return f"{' '.join(place)}, {things}"
    return " ".join([things, *place])


def _things(spec: SceneSpec, relation: str) -> str:
    named = [name_group(group) for group in spec.groups]
    if relation:
        return f"{named[0]} {relation} {named[1]}"
    return named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"


def name_group(group: GroupSpec) -> str:
    """The words for a group, such as "a large red metal sphere" or "three green cones"."""
    words = [word for word in (group.size, group.colour, group.material) if word]
    words.append(group.shape if group.count == 1 else group.shape + "s")
    if group.count > 1:
        return " ".join([NUMBERS[group.count], *words])
    return f"{'an' if words[0][0] in 'aeiou' else 'a'} {' '.join(words)}"


def parse(text: str) -> SceneSpec:
    """Parse a caption: the inverse of every phrasing of this module.

    Raises:
        RequestError: if a part of the text is not in the grammar.
    """
    rest = text.lower().strip()
    rest, floor = _take(rest, FLOOR_PHRASES)
    rest, light = _take(rest, LIGHT_PHRASES)
    rest = re.sub(r"\s+", " ", rest).strip(" ,")
    for opening in OPENINGS[1:]:
        rest = rest.removeprefix(opening)
    for relation, phrases in RELATION_PHRASES.items():
        pattern = "|".join(sorted(phrases, key=len, reverse=True))
        sides = re.split(rf" (?:{pattern}) ", rest)
        if len(sides) == 2:
            groups = (_parse_group(sides[0]), _parse_group(sides[1]))
            return SceneSpec(groups=groups, relation=relation, floor=floor, light=light)
    named = re.split(r", | and ", rest)
    return SceneSpec(groups=tuple(_parse_group(part) for part in named), floor=floor, light=light)


def _take(text: str, phrases: Mapping[str, tuple[str, ...]]) -> tuple[str, str | None]:
    """The text without the first phrase found, and what that phrase means."""
    for meaning, ways in phrases.items():
        for way in ways:
            found = re.search(rf"(?<!\w){way}(?!\w)", text)
            if found:
                return text[: found.start()] + text[found.end() :], meaning
    return text, None


def _parse_group(text: str) -> GroupSpec:
    article, *words = text.split() or [""]
    count = 1 if article in ("a", "an") else NUMBERS.index(article) if article in NUMBERS[1:] else 0
    shape = words.pop().removesuffix("s") if words else ""
    said: dict[str, str] = {}
    for word in words:
        kinds = {"size": SIZES, "colour": COLOURS, "material": MATERIALS}
        kind = next((name for name, known in kinds.items() if word in known and name not in said), None)
        if kind is None:
            count = 0
            break
        said[kind] = word
    if not count or shape not in SHAPES:
        raise RequestError(
            f"{text!r} is not a thing of the Toybox world; say for example 'a large red metal sphere'"
        )
    return GroupSpec(shape=shape, count=count, **said)
