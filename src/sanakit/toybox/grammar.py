"""The words of Toybox and the values they build: objects, scenes, what a caption says, and the held-out split.

A `Scene` is everything the renderer needs. A `SceneSpec` is what a caption tells about a scene: `None` is "not said".
World units: the floor is y = 0, x goes right, z goes away from the camera, which stands near (0, 3, 0).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

SHAPES = ("sphere", "cube", "cylinder", "cone", "pyramid")
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink", "white", "black")
MATERIALS = ("rubber", "metal", "striped")
SIZES = ("large", "small")
FLOORS = ("grass", "sand", "snow", "wood", "tiles", "water")
LIGHTS = ("noon", "sunset", "night", "overcast")
RELATIONS = ("left of", "right of", "in front of", "behind")
MAX_OBJECTS = 4
DRAWS = "one to four solids on a floor under a light"
NEXT_TO = "next to"  # left or right: what a caption may say of a scene, but no scene is drawn for
INVERSE_RELATION = {
    "left of": "right of",
    "right of": "left of",
    "in front of": "behind",
    "behind": "in front of",
    NEXT_TO: NEXT_TO,
}

Split = Literal["train", "held_out"]
HELD_OUT_SHARE = 0.08  # of each kind of combination below

# Combinations that stay in training whatever their hash: those of the prompt every newcomer draws first.
_ALWAYS_TRAINED = {
    ("object", "sphere", "red", "metal"),
    ("object", "cube", "blue", "rubber"),
    ("place", "grass", "sunset"),
    ("pair", "cube", "blue", "sphere", "red"),
}


@dataclass(frozen=True, kw_only=True)
class SceneObject:
    """One solid standing on the floor at (x, z) in world units, turned by `yaw` radians."""

    shape: str
    colour: str
    material: str
    size: str
    x: float
    z: float
    yaw: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One to four objects, a floor and a light; `seed` fixes the camera's jitter and the floor's pattern."""

    objects: tuple[SceneObject, ...]
    floor: str
    light: str
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return a dict of plain values, for one line of a `scenes-*.jsonl` file."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Scene:
        """Return the scene that `to_json` wrote."""
        objects = tuple(SceneObject(**item) for item in data["objects"])
        return cls(objects=objects, floor=data["floor"], light=data["light"], seed=data["seed"])


@dataclass(frozen=True, kw_only=True)
class GroupSpec:
    """`count` objects that share what is said of them; the shape is always said."""

    shape: str
    count: int = 1
    colour: str | None = None
    material: str | None = None
    size: str | None = None

    def matches(self, item: SceneObject) -> bool:
        """Return whether everything said is true of `item` (the count apart)."""
        said = ((self.colour, item.colour), (self.material, item.material), (self.size, item.size))
        return self.shape == item.shape and all(word is None or word == true for word, true in said)


@dataclass(frozen=True, kw_only=True)
class SceneSpec:
    """The content of a caption: groups of objects, perhaps a relation of the first to the second, floor, light."""

    groups: tuple[GroupSpec, ...] = field(default=())
    relation: str | None = None
    floor: str | None = None
    light: str | None = None

    @property
    def count(self) -> int:
        """How many objects are named in all."""
        return sum(group.count for group in self.groups)


def groups_of(scene: Scene) -> tuple[GroupSpec, ...]:
    """Return the scene's objects, identical ones joined, in the order of their first appearance."""
    seen = Counter((o.shape, o.colour, o.material, o.size) for o in scene.objects)
    return tuple(
        GroupSpec(shape=shape, colour=colour, material=material, size=size, count=count)
        for (shape, colour, material, size), count in seen.items()
    )


def combinations(spec: Scene | SceneSpec) -> set[tuple[str, ...]]:
    """Return the attribute combinations the split is made of, those of them that are fully named.

    `object` (shape, colour, material); `place` (floor, light); `pair` (shape and colour of both objects where there
    are exactly two, in no order); `count` (number, shape, colour) where several objects share shape and colour.
    """
    groups = groups_of(spec) if isinstance(spec, Scene) else spec.groups
    found: set[tuple[str, ...]] = set()
    tally: Counter[tuple[str, str]] = Counter()
    for group in groups:
        if group.colour is None:
            continue
        tally[group.shape, group.colour] += group.count
        if group.material is not None:
            found.add(("object", group.shape, group.colour, group.material))
    found |= {("count", str(n), *kind) for kind, n in tally.items() if n > 1}
    if spec.floor is not None and spec.light is not None:
        found.add(("place", spec.floor, spec.light))
    if sum(group.count for group in groups) == 2 and tally.total() == 2 and len(tally) == 2:
        first, second = sorted(tally)
        found.add(("pair", *first, *second))
    return found


def is_held_out(spec: Scene | SceneSpec) -> bool:
    """Return whether the scene (or a prompt about it) contains a combination that no training scene contains."""
    return any(map(_combination_held_out, combinations(spec)))


def _combination_held_out(combination: tuple[str, ...]) -> bool:
    if combination in _ALWAYS_TRAINED:
        return False
    digest = hashlib.sha256("|".join(combination).encode()).digest()
    return int.from_bytes(digest[:4], "big") < HELD_OUT_SHARE * 2**32
