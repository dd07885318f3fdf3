"""Whether a picture shows what a prompt says: everything said must be seen, and numbers must be exact."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations

from sanakit.toybox.captions import name_group
from sanakit.toybox.grammar import NEXT_TO, GroupSpec, SceneSpec
from sanakit.toybox.judging.reading import Found, Reading

BESIDE, BEHIND = 0.125, 0.6  # of the width and world units: half of what a caption asks of a scene


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The verdict on a picture for a prompt.

    correct: whether all of it is seen. faults: one short sentence for each thing that is not as said. score: mean
    probability, 0..1, of the words that were said, read at the objects that fit best.
    """

    correct: bool
    faults: tuple[str, ...]
    score: float


def judge(spec: SceneSpec, reading: Reading) -> Verdict:
    """Hold a reading to what was asked.

    Every thing of the prompt needs an object of its own. Where a prompt counts ("three green cones"), there must be
    exactly that many; additional things are not a fault, as in GenEval (arXiv 2310.11513).
    """
    faults = [*_place_faults(spec, reading)]
    wanted = [group for group in spec.groups for _ in range(group.count)]
    best = max(_assignments(wanted, reading.objects), key=lambda seats: _fit(spec, wanted, seats))
    faults += _object_faults(spec, wanted, best, reading)
    return Verdict(correct=not faults, faults=tuple(faults), score=_score(spec, wanted, best, reading))


def _assignments(wanted: list[GroupSpec], objects: tuple[Found, ...]) -> Iterator[tuple[Found | None, ...]]:
    """Yield every way to give each wanted thing an object of its own, or none if there are too few."""
    seats: list[Found | None] = [*objects, *[None] * max(0, len(wanted) - len(objects))]
    return permutations(seats, len(wanted))


def _fit(
    spec: SceneSpec, wanted: list[GroupSpec], seats: tuple[Found | None, ...]
) -> tuple[int, bool, float]:
    hits = sum(item is not None and is_said(group, item) for group, item in zip(wanted, seats, strict=True))
    return hits, related(spec, seats), _words_score(wanted, seats)


def is_said(group: GroupSpec, item: Found) -> bool:
    """Return whether everything that is said of a group is true of an object that was read."""
    said = ((group.colour, item.colour), (group.material, item.material), (group.size, item.size))
    return group.shape == item.shape and all(word in (None, read) for word, read in said)


def related(spec: SceneSpec, seats: tuple[Found | None, ...]) -> bool:
    """Return whether the first two objects stand as the prompt says; True if it says nothing."""
    if spec.relation is None:
        return True
    first, second = seats[0], seats[1]
    if first is None or second is None:
        return False
    right, deeper = second.u - first.u, second.depth - first.depth
    return {
        "left of": right >= BESIDE,
        "right of": -right >= BESIDE,
        "in front of": deeper >= BEHIND,
        "behind": -deeper >= BEHIND,
        NEXT_TO: abs(right) >= BESIDE,
    }[spec.relation]


def _object_faults(
    spec: SceneSpec, wanted: list[GroupSpec], seats: tuple[Found | None, ...], reading: Reading
) -> Iterator[str]:
    for group, item in zip(wanted, seats, strict=True):
        if item is None:
            yield f"no {group.shape} is there"
        elif not is_said(group, item):
            yield f"{item.size} {item.colour} {item.material} {item.shape} stands for {name_group(group)}"
    for group in spec.groups:
        count = sum(is_said(group, item) for item in reading.objects)
        if group.count > 1 and count > group.count:
            yield f"{count} stand for {name_group(group)}"
    if not related(spec, seats):
        yield f"the first is not {spec.relation} the second"


def _place_faults(spec: SceneSpec, reading: Reading) -> Iterator[str]:
    for said, read in ((spec.floor, reading.floor), (spec.light, reading.light)):
        if said not in (None, read):
            yield f"{read} stands for {said}"


def _words(group: GroupSpec) -> dict[str, str]:
    said = {"shape": group.shape, "colour": group.colour, "material": group.material, "size": group.size}
    return {name: word for name, word in said.items() if word is not None}


def _words_score(wanted: list[GroupSpec], seats: tuple[Found | None, ...]) -> float:
    return sum(
        item.presence * item.sure[name][word]
        for group, item in zip(wanted, seats, strict=True)
        if item is not None
        for name, word in _words(group).items()
    )


def _score(
    spec: SceneSpec, wanted: list[GroupSpec], seats: tuple[Found | None, ...], reading: Reading
) -> float:
    place = [reading.sure["floor"][spec.floor]] if spec.floor else []
    place += [reading.sure["light"][spec.light]] if spec.light else []
    total = sum(len(_words(group)) for group in wanted) + len(place)
    return (_words_score(wanted, seats) + sum(place)) / max(total, 1)
