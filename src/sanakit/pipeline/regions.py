"""Regions of a picture with words of their own, and which words each token reads.

One text names all that there is to see, as the captions did that a model learnt from; it is encoded once. In
cross-attention the words of a box are then read by its tokens alone, the rest of the text by all; where boxes overlap,
the later one counts. Self-attention stays as it is: there the regions see each other and become one picture.

Sources: Balaji et al. 2022, "eDiff-I", arXiv:2211.01324, section 4.3 (paint with words); Kim et al. 2023, "Dense
text-to-image generation with attention modulation", arXiv:2308.12964, section 3.2. Both add to the weights of the
attention in proportion to the noise; here words of other boxes have none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sanakit.base.bounds import is_finite
from sanakit.base.echo import quoted
from sanakit.base.errors import RequestError
from sanakit.base.sizes import Size
from sanakit.pipeline import fields as f

if TYPE_CHECKING:
    from torch import Tensor

MAX_REGIONS = 32
_EXAMPLE = "0,0,0.5,1:a red cube"

Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Region:
    """A box of the picture with words of its own.

    box: left, top, width, height. In fractions of the picture if none of them is above 1, else in pixels.
    """

    box: Box
    prompt: str

    def __post_init__(self) -> None:
        f.text("the words of a region", self.prompt)
        if not self.prompt.strip():
            raise RequestError(f"a region needs words: write it as {_EXAMPLE!r}")
        if len(self.box) != 4 or not all(
            isinstance(side, int | float) and is_finite(side) for side in self.box
        ):
            raise RequestError(f"a region has a box of four numbers: write it as {_EXAMPLE!r}")
        left, top, width, height = self.box
        if min(left, top) < 0 or min(width, height) <= 0:
            raise RequestError(f"the region {self} must have a place from 0 and a width and height above 0")

    def __str__(self) -> str:
        return f"{','.join(f'{side:g}' for side in self.box)}:{self.prompt}"

    def pixels(self, size: Size) -> Box:
        """Return left, top, right, bottom in pixels of a picture. Raises RequestError if it lies outside of it."""
        across, down = (size.width, size.height) if max(self.box) <= 1 else (1, 1)
        left, top, width, height = self.box
        found = (left * across, top * down, (left + width) * across, (top + height) * down)
        if found[2] > size.width + 1e-6 * across or found[3] > size.height + 1e-6 * down:
            raise RequestError(f"the region {quoted(str(self))} lies outside of the picture of {size} pixels")
        return found


def _parse_region(text: object) -> Region:
    """`0,0,0.5,1:a red cube` as a region. Raises RequestError."""
    box, colon, prompt = str(text).partition(":")
    try:
        sides = tuple(float(side) for side in box.split(","))
    except ValueError:
        sides = ()
    if not isinstance(text, str) or not colon or len(sides) != 4:
        raise RequestError(
            f"a region is left,top,width,height:words, in pixels or fractions, such as {_EXAMPLE!r}, not {quoted(text)}"
        )
    return Region(box=sides, prompt=prompt.strip())


def take_regions(value: object) -> tuple[Region, ...]:
    """Regions, or texts such as `0,0,0.5,1:a red cube`, as regions. Raises RequestError."""
    if isinstance(value, str | Region) or not isinstance(value, list | tuple):
        raise RequestError(f"regions are a list of regions such as {_EXAMPLE!r}, not {quoted(value)}")
    return tuple(one if isinstance(one, Region) else _parse_region(one) for one in value)


def regions_to_json(regions: tuple[Region, ...]) -> list[dict[str, Any]]:
    """Regions as JSON holds them."""
    return [{"box": list(region.box), "prompt": region.prompt} for region in regions]


def regions_from_json(data: object) -> tuple[Region, ...]:
    """Inverse of `regions_to_json`. Raises RequestError."""
    rows: list[Any] = data if isinstance(data, list) else [None]
    if not all(isinstance(row, Mapping) and isinstance(row.get("box"), list) for row in rows):
        raise RequestError("a region in a record has a box and a prompt")
    return tuple(Region(box=tuple(row["box"]), prompt=row.get("prompt", "")) for row in rows)


def check_regions(name: str, value: tuple[Region, ...]) -> None:
    """Refuse more than are sensible."""
    if len(value) > MAX_REGIONS:
        raise RequestError(f"a picture has at most {MAX_REGIONS} regions, not {len(value)}")


def name_all(prompt: str, words: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """Return a prompt that names all regions, and where the words of each lie in it: first letter and end.

    Words that the prompt says stay where it says them, the others go before it: "a cube", "a cone" and "on grass" make
    "a cube and a cone, on grass".
    """
    places = _said(prompt, words)
    missing = [number for number in range(len(words)) if number not in places]
    text = ""
    for number in missing:
        text += "" if number == missing[0] else " and " if number == missing[-1] else ", "
        places[number] = (len(text), len(text) + len(words[number]))
        text += words[number]
    between = ", " if text and prompt else ""
    before = len(text + between)
    shifts = [0 if number in missing else before for number in range(len(words))]
    found = [(places[number][0] + shift, places[number][1] + shift) for number, shift in enumerate(shifts)]
    return text + between + prompt, found


def _said(prompt: str, words: Sequence[str]) -> dict[int, tuple[int, int]]:
    """Return where a prompt says the words of regions, a place for each by number; without those it doesn't."""
    places: dict[int, tuple[int, int]] = {}
    for number, each in enumerate(words):
        for match in re.finditer(rf"(?<!\w){re.escape(each)}(?!\w)", prompt, re.IGNORECASE):
            if all(match.end() <= first or end <= match.start() for first, end in places.values()):
                places[number] = match.span()
                break
    return places


def tokens_read(
    regions: Sequence[Region], size: Size, placed: Callable[[Box], Box], drawn: Size, step: int
) -> Tensor:
    """Return whose words each token reads, [N] int64 row by row: k for region k counted from 1, 0 for none's.

    Args:
        regions: with boxes of a picture.
        size: of that picture.
        placed: from a box of the picture (left, top, right, bottom) to the same in pixels drawn.
        drawn: the size that is drawn.
        step: pixels of a token along a side.

    A token belongs to a box that holds its centre, and the smallest box has at least the token of its own centre.
    Raises RequestError for a region outside of the picture.
    """
    import torch

    reads = torch.zeros(drawn.height // step, drawn.width // step, dtype=torch.int64)
    for number, region in enumerate(regions, 1):
        left, top, right, bottom = (side / step for side in placed(region.pixels(size)))
        rows, columns = _covered(top, bottom, len(reads)), _covered(left, right, reads.shape[1])
        reads[rows, columns] = number
    return reads.flatten()


def _covered(low: float, high: float, count: int) -> slice:
    """Return the cells of 0..count whose centres lie in a range, at least the one that holds its middle."""
    first, last = math.ceil(low - 0.5), math.ceil(high - 0.5)
    if last <= first:
        first = min(max(int((low + high) / 2), 0), count - 1)
        last = first + 1
    return slice(max(first, 0), min(last, count))
