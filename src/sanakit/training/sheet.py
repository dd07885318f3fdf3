"""Pictures on a sheet with a text below each: what was asked for stands beside what came of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from PIL import Image, ImageDraw, ImageFont

from sanakit.pipeline import make_grid

__all__ = ["captioned_sheet"]

_GAP = 4
_MARGIN = 3
_NARROWEST = 160  # pixels of a column: below it a line holds a word or two
_LETTERS = 11  # pixels; they stay as they are on large pictures, whose columns hold more of them
_MOST_LINES = 6


def captioned_sheet(pictures: Sequence[Image.Image], texts: Sequence[str]) -> Image.Image:
    """Pictures of one size in a grid, the text of each below it; long texts end in an ellipsis.

    The pictures' own pixels are not scaled; small ones stand in the middle of wider columns.
    """
    font = _font("".join(texts))
    width = max(pictures[0].width, _NARROWEST)
    lines = [list(_wrapped(text, font, width - 2 * _MARGIN)) for text in texts]
    tall = max(len(each) for each in lines)
    cells = [_cell(picture, each, tall, width, font) for picture, each in zip(pictures, lines, strict=True)]
    return make_grid(cells, gap=_GAP)


_Font = ImageFont.ImageFont | ImageFont.FreeTypeFont
_WIDE = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "Arial Unicode.ttf", "arial.ttf")
"""Fonts of systems, asked for where a text has letters that Pillow's own font lacks: it knows ASCII alone."""


def _font(text: str) -> _Font:
    for name in () if text.isascii() else _WIDE:
        try:
            return ImageFont.truetype(name, _LETTERS)
        except OSError:
            continue
    return ImageFont.load_default(_LETTERS)


def _cell(picture: Image.Image, lines: Sequence[str], tall: int, width: int, font: _Font) -> Image.Image:
    """One picture over its lines, with room for as many as the longest text of the sheet has."""
    step = _LETTERS + _MARGIN
    cell = Image.new("RGB", (width, picture.height + tall * step + 2 * _MARGIN), "white")
    cell.paste(picture, ((width - picture.width) // 2, 0))
    draw = ImageDraw.Draw(cell)
    for number, line in enumerate(lines):
        draw.text((_MARGIN, picture.height + _MARGIN + number * step), line, fill="black", font=font)
    return cell


def _wrapped(text: str, font: _Font, width: int) -> Iterator[str]:
    """The lines of a text, broken between words and, where a word alone is too wide, inside it."""
    rest = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    for number in range(_MOST_LINES):
        if not rest:
            return
        size = _fitting(rest, font, width)
        if size < len(rest) and number == _MOST_LINES - 1:
            yield f"{rest[: max(1, size - 3)]}..."
            return
        cut = rest.rfind(" ", 0, size + 1) if size < len(rest) else size
        cut = cut if cut > 0 else size
        yield rest[:cut]
        rest = rest[cut:].lstrip()


def _fitting(text: str, font: _Font, width: int) -> int:
    """How many of the first letters fit, at least one."""
    low, high = 1, len(text[: 2 * width])
    while low < high:
        middle = (low + high + 1) // 2
        fits = font.getlength(text[:middle]) <= width
        low, high = (middle, high) if fits else (low, middle - 1)
    return low
