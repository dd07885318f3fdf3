"""Sheets: the pixels of pictures stay, and each has its text below it, however long."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from sanakit.training.preview import captioned_sheet

SIZE = 48


def cell(sheet: Image.Image, row: int, column: int, count: int) -> np.ndarray:
    """The pixels of one column of a row, of `count` each way."""
    pixels = np.asarray(sheet)
    height, width = pixels.shape[0] // count, pixels.shape[1] // count
    return pixels[row * height : (row + 1) * height, column * width : (column + 1) * width]


@pytest.mark.parametrize("text", ["a cat", "word " * 400, "x" * 3000, "zwölf 猫\x1b[31m\nlines"])
def test_a_text_stands_below_its_picture_and_only_there(text: str) -> None:
    pictures = [Image.new("RGB", (SIZE, SIZE), colour) for colour in ("red", "green", "blue", "gray")]
    sheet = captioned_sheet(pictures, [text, "", "", ""])
    assert sheet.height < 2 * (SIZE + 6 * 14 + 20)
    for number, picture in enumerate(pictures):
        part = cell(sheet, *divmod(number, 2), 2)
        colour = np.asarray(picture)[0, 0]
        assert (part == colour).all(axis=2).sum() >= SIZE * SIZE
        dark = (part < 60).all(axis=2)
        assert bool(dark.any()) == (number == 0)
        assert number or (not dark[:SIZE].any() and not dark[:, -2:].any())


def test_wide_pictures_keep_their_width() -> None:
    assert captioned_sheet([Image.new("RGB", (400, 20))], ["a"]).width == 400
