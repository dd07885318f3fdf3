"""The parts of a request that change a picture: their texts and checks, before a model is opened.

What depends on the size that a model draws is in `canvas.py`.
"""

from __future__ import annotations

import re
from typing import Any

from sanakit.base.echo import quoted
from sanakit.base.errors import RequestError
from sanakit.base.sizes import Size
from sanakit.pipeline import fields as f
from sanakit.pipeline.inputs import InputImage, flattened

HOWS = ("flow-edit", "inversion")
"""How an edit by words is done, the usual way first."""


def check_how(name: str, value: object) -> None:
    """Refuse what isn't one of `HOWS`."""
    if value not in HOWS:
        raise RequestError(f"unknown {name} {quoted(value)}: choose one of {', '.join(HOWS)}")


def take_margins(value: object) -> tuple[int, ...]:
    """`0,0,64,0`, or four numbers, as margins: left, top, right, bottom. Raises RequestError."""
    if isinstance(value, str):
        if not re.fullmatch(r"\s*\d{1,6}\s*(,\s*\d{1,6}\s*){3}", value):
            raise RequestError(
                f"margins are left,top,right,bottom in pixels, such as 0,0,64,0, not {quoted(value)}"
            )
        return tuple(int(part) for part in value.split(","))
    return tuple(value) if isinstance(value, list | tuple) else (-1,)


def check_margins(name: str, value: tuple[int, ...]) -> None:
    """Refuse what isn't four whole numbers, one of them above 0."""
    if len(value) != 4:
        raise RequestError(f"{name} must be four numbers: left, top, right, bottom in pixels")
    for margin in value:
        f.Whole(0, 16384)(f"each margin of {name}", margin)
    if not any(value):
        raise RequestError(f"{name} must have a margin above 0")


def margins_from_json(data: object) -> tuple[int, ...]:
    """Margins of a record; what they hold is checked with the request."""
    return tuple(data) if isinstance(data, list) else (-1,)


def check_edit(
    source: InputImage | None,
    mask: InputImage | None,
    strength: float | None,
    outpaint: tuple[int, ...] | None,
) -> None:
    """Refuse parts of a request that contradict each other; pictures known by name only aren't compared."""
    if source is None:
        parts = {"mask": mask, "strength": strength, "outpaint": outpaint}
        given = [name for name, value in parts.items() if value is not None]
        if given:
            raise RequestError(f"{given[0]} is for changing a picture: give one as source")
        return
    if strength == 0 and outpaint is not None:
        raise RequestError(
            "strength 0 changes nothing, and outpaint asks for new margins: raise the strength"
        )
    if source.pixels is not None and mask is not None and mask.pixels is not None:
        _check_mask(mask, source)


def check_words(
    source: InputImage | None,
    source_prompt: str | None,
    guidance: float | None,
    averages: int | None,
    how: str | None,
) -> None:
    """Refuse parts of an edit by words that lack the others, or have nothing to do with how it is done."""
    if source is None and source_prompt is not None:
        raise RequestError("source_prompt is for changing a picture: give one as source")
    for name, value in (("source_guidance", guidance), ("averages", averages), ("how", how)):
        if value is not None and source_prompt is None:
            raise RequestError(f"{name} is for an edit by words: say what the source shows, as source_prompt")
    if how == "inversion" and averages is not None:
        raise RequestError(
            "averages are of the noises of flow-edit, and how=inversion draws none: leave them out"
        )


def _check_mask(mask: InputImage, source: InputImage) -> None:
    have, want = Size(*mask.image.size), Size(*source.image.size)
    if have != want:
        raise RequestError(
            f"the mask {quoted(mask.name)} has {have} pixels and the picture {quoted(source.name)} has {want}: "
            "give a mask of the picture's size"
        )
    if mask_levels(mask).getextrema() == (0, 0):
        raise RequestError(
            f"the mask {quoted(mask.name)} is empty: paint white what is to be drawn anew, and leave the rest black"
        )


def mask_levels(mask: InputImage) -> Any:
    """Return the mask as a PIL image of grey levels, 255 for what is drawn anew; what is transparent is 0."""
    return flattened(mask.image, "black").convert("L")
