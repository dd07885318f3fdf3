"""How often the judge is right: its readings held against the scenes that were rendered."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

from sanakit.toybox.grammar import Scene
from sanakit.toybox.judging.network import PLACE, WORDS
from sanakit.toybox.judging.reading import Found, Reading
from sanakit.toybox.judging.targets import middle_of

NEAR = 0.1  # of the width: a reading this near to an object's middle is a reading of that object


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
