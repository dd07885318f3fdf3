"""Scenes into words: what a caption says of a scene, and how it is said plainly.

A plain caption is `things [on floor] [light]`. A caption names only what a scene shows and may leave out anything but
shapes; `wording` says the same in other words, and `parsing.parse` recovers exactly what was said.
"""

from __future__ import annotations

import random
from dataclasses import replace

from sanakit.toybox.grammar import INVERSE_RELATION, NEXT_TO, GroupSpec, Scene, SceneSpec, groups_of
from sanakit.toybox.sampling import relation_between
from sanakit.toybox.wording import trained_wording
from sanakit.toybox.words import COUNT_WAYS, FLOOR_WAYS, LIGHT_WAYS

BESIDE = ("left of", "right of")


def caption(scene: Scene, draw: random.Random) -> str:
    """One caption of the scene: the whole truth or a part of it, half the time in plain words, else in others."""
    spec = partial_spec(scene, draw)
    if spec.relation in BESIDE and draw.random() < 0.12:
        spec = replace(spec, relation=NEXT_TO)
    return phrase(spec) if draw.random() < 0.5 else trained_wording(spec, draw)


def partial_spec(scene: Scene, draw: random.Random) -> SceneSpec:
    """Return what one caption says of the scene: all of it or a part, from either thing's side."""
    spec = full_spec(scene)
    if spec.relation is not None and draw.random() < 0.5:
        spec = turned(spec)
    return shortened(spec, draw) if draw.random() < 0.65 else spec


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
    said += [trained_wording(spec, random.Random(seed)) for seed in range(4)]
    return list(dict.fromkeys(said))


def full_spec(scene: Scene) -> SceneSpec:
    """Everything there is to say about a scene; the relation only where two objects leave no doubt about it."""
    groups = groups_of(scene)
    relation = relation_between(scene) if len(scene.objects) == len(groups) == 2 else None
    return SceneSpec(groups=groups, relation=relation, floor=scene.floor, light=scene.light)


def turned(spec: SceneSpec) -> SceneSpec:
    """Return the same said from the second object's side: "b right of a" for "a left of b"."""
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
    """Join groups that now read the same: two different cubes without their colours are two cubes."""
    joined: dict[GroupSpec, int] = {}
    for group in spec.groups:
        key = replace(group, count=1)
        joined[key] = joined.get(key, 0) + group.count
    if len(joined) == len(spec.groups):
        return spec
    return replace(spec, groups=tuple(replace(key, count=n) for key, n in joined.items()), relation=None)


def phrase(spec: SceneSpec) -> str:
    """Return the plain caption: "a large red metal sphere left of a small blue rubber cube on grass at sunset"."""
    floor = FLOOR_WAYS[spec.floor][0] if spec.floor else ""
    light = LIGHT_WAYS[spec.light][0] if spec.light else ""
    return " ".join(part for part in (plain_things(spec, spec.relation or ""), floor, light) if part)


def plain_things(spec: SceneSpec, relation: str = "") -> str:
    """Things by their plain names: "a left of b", or "a, b and c" without a relation."""
    named = [name_group(group) for group in spec.groups]
    if relation:
        return f"{named[0]} {relation} {named[1]}"
    return named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"


def name_group(group: GroupSpec) -> str:
    """Return the plain words for a group, such as "a large red metal sphere" or "three green cones"."""
    words = [word for word in (group.size, group.colour, group.material) if word]
    words.append(group.shape if group.count == 1 else group.shape + "s")
    if group.count > 1:
        return " ".join([COUNT_WAYS[group.count][0], *words])
    return f"{'an' if words[0][0] in 'aeiou' else 'a'} {' '.join(words)}"
