"""GenEval's object checks (arXiv 2310.11513): what a prompt names is there, so often, so coloured and so placed.

A detector says what is where, and a CLIP which colour a thing has. Thresholds and rules are those of the published
code; see `faults` for what it asks. Its detector is a Mask2Former, others have thresholds of their own: scores of
different detectors don't compare.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from sanakit.base.echo import quoted
from sanakit.base.errors import DataError
from sanakit.data.labels.labellers import Detection, Detector, Scorer

GENEVAL = "geneval"
"""The name under which the checks are reported: 100 for a picture without a fault, 0 for others."""
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
RELATIONS = ("left of", "right of", "above", "below")
TAG = "counting"
"""Of the prompts whose things must be surer, as numbers are what is asked."""

_SURE, _SURE_TO_COUNT = 0.3, 0.9
_MOST = 16  # of a class
_APART = 0.1  # of the sizes of two boxes: nearer middles stand in no relation
_WAYS = (
    "a photo of a {colour} {name}",
    "a photo of a {colour}-colored {name}",
    "a photo of a {colour} object",
)
_OTHER_NAMES = {"computer mouse": "mouse", "tv remote": "remote", "computer keyboard": "keyboard"}
"""GenEval's words for classes of COCO, which detectors call otherwise."""

ColourOf = Callable[[Image.Image, str], str]
"""A picture of one thing, and what it is -> one of COLOURS."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Things of a class. colour: of each. relation: how each stands to all things of the group of that number."""

    name: str
    count: int
    colour: str | None = None
    relation: tuple[str, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a prompt asks for. without: classes of which there must be fewer than so many."""

    wanted: tuple[Wanted, ...]
    without: tuple[Wanted, ...] = ()

    @property
    def names(self) -> set[str]:
        """All classes that it names."""
        return {one.name for one in (*self.wanted, *self.without)}


def read_asked(row: Mapping[str, Any]) -> Asked | None:
    """What a line of `evaluation_metadata.jsonl` asks for; None if it says nothing of objects. Raises DataError."""
    if "include" not in row:
        return None
    try:
        wanted = tuple(_wanted(one) for one in row["include"])
        without = tuple(_wanted(one) for one in row.get("exclude", ()))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise DataError(f"{quoted(row.get('prompt'))}: its objects are not as GenEval writes them") from None
    for number, one in enumerate(wanted):
        if one.relation is not None and not 0 <= one.relation[1] < number:
            raise DataError(
                f"{quoted(row.get('prompt'))}: {one.name} stands in relation to no thing before it"
            )
    return Asked(wanted=wanted, without=without)


def _wanted(row: Mapping[str, Any]) -> Wanted:
    relation = None
    if row.get("position") is not None:
        said, group = row["position"]
        if said not in RELATIONS:
            raise ValueError(said)
        relation = str(said), int(group)
    colour = row.get("color")
    if colour is not None and colour not in COLOURS:
        raise ValueError(colour)
    return Wanted(name=str(row["class"]), count=int(row["count"]), colour=colour, relation=relation)


def check_names(asked: Sequence[Asked], detector: Detector) -> None:
    """Raise DataError if a detector lacks a class that is asked for: it would never be seen."""
    missing = sorted(
        {name for one in asked for name in one.names if _OTHER_NAMES.get(name, name) not in detector.names}
    )
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(f"the detector knows no {quoted(missing[0])}{more}: take one of COCO's classes")


def check_picture(
    picture: Image.Image, asked: Asked, tag: str, detector: Detector, colour_of: ColourOf
) -> list[str]:
    """What is wrong with a picture, a sentence each; [] if it is right. tag: the category of its prompt."""
    found = sure(detector([picture])[0], _SURE_TO_COUNT if tag == TAG else _SURE)
    return faults(asked, found, lambda thing, name: colour_of(picture.crop(thing.box), name))


def sure(found: Sequence[Detection], least: float) -> dict[str, list[Detection]]:
    """Class -> the things that a detector is sure of, the surest first, at most 16."""
    kept: dict[str, list[Detection]] = {}
    for one in sorted(found, key=lambda one: -one.score):
        same = kept.setdefault(one.name, [])
        if one.score > least and len(same) < _MOST:
            same.append(one)
    return kept


def faults(
    asked: Asked, found: Mapping[str, Sequence[Detection]], colour_of: Callable[[Detection, str], str]
) -> list[str]:
    """What of a prompt isn't there.

    Of each class the surest things count, as many as are asked for: all must have the colour, and each must stand as
    said to each of the group that it refers to. More things are no fault, unless the prompt says how many are too many.
    """
    told: list[str] = []
    groups: list[Sequence[Detection] | None] = []
    for one in asked.wanted:
        things = _of(found, one.name)[: one.count]
        fault = _fault(one, things, groups, colour_of)
        told += [fault] if fault else []
        groups.append(None if fault else things)
    for one in asked.without:
        count = len(_of(found, one.name))
        told += (
            [f"{count} of {one.name}, fewer than {one.count} were asked for"] if count >= one.count else []
        )
    return told


def _of(found: Mapping[str, Sequence[Detection]], name: str) -> Sequence[Detection]:
    return found.get(name) or found.get(_OTHER_NAMES.get(name, name), ())


def _fault(
    one: Wanted,
    things: Sequence[Detection],
    groups: Sequence[Sequence[Detection] | None],
    colour_of: Callable[[Detection, str], str],
) -> str:
    if len(things) < one.count:
        return f"{len(things)} of {one.count} {one.name}"
    if one.colour is not None:
        seen = [colour_of(thing, one.name) for thing in things]
        if seen.count(one.colour) < one.count:
            return f"{' and '.join(seen)} instead of {one.colour} {one.name}"
    if one.relation is not None:
        relation, number = one.relation
        others = groups[number]
        if others is None:
            return f"nothing that {one.name} could be {relation}"
        if not all(relation in relations(thing.box, other.box) for thing in things for other in others):
            return f"{one.name} is not {relation} the other"
    return ""


Box = tuple[float, float, float, float]
"""Left, top, right, bottom, in pixels."""


def relations(box: Box, other: Box) -> set[str]:
    """How a box stands to another: of its offset, less a tenth of both sizes, each axis with more than half."""
    offset = [(box[k] + box[k + 2] - other[k] - other[k + 2]) / 2 for k in (0, 1)]
    sizes = [abs(box[k + 2] - box[k]) + abs(other[k + 2] - other[k]) for k in (0, 1)]
    length = math.hypot(*offset)
    if not length:
        return set()
    across, down = (
        math.copysign(max(abs(far) - _APART * size, 0.0), far) / length
        for far, size in zip(offset, sizes, strict=True)
    )
    held = {"left of": -across, "right of": across, "above": -down, "below": down}
    return {name for name, share in held.items() if share > 0.5}


def colours_by(scorer: Scorer) -> ColourOf:
    """Colours by a scorer, such as a CLIP: the one whose three texts have the highest mean."""

    def colour_of(picture: Image.Image, name: str) -> str:
        texts = [way.format(colour=colour, name=name) for colour in COLOURS for way in _WAYS]
        scores = scorer([picture.convert("RGB")], [texts])[0]
        means = [sum(scores[k : k + len(_WAYS)]) for k in range(0, len(texts), len(_WAYS))]
        return COLOURS[means.index(max(means))]

    return colour_of
