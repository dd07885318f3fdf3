"""Pixels of any mode of Pillow as RGB: alpha on white, 16 bits to 8, CMYK and L*a*b* converted."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from sanakit.base.errors import PictureError

_WITH_ALPHA = ("RGBA", "LA", "La", "PA", "RGBa")
_PHOTOMETRIC = 262  # the TIFF tag that says what 0 means
_BITS = 258
_WHITE_IS_ZERO = 0


def to_rgb(image: Image.Image, bits: int = 8) -> Image.Image:
    """A decoded picture as RGB. bits: of a sample as stored, for PNG.

    Raises PictureError for numbers without a range.
    """
    clear = image.info.get("transparency")
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _on_white(*_grey16(image, clear))
    if clear is not None and image.mode in ("1", "L", "RGB"):
        return _on_white(image.convert("RGB"), _is_clear(image, clear, bits))
    if clear is not None or image.mode in _WITH_ALPHA:
        if image.mode == "La":
            image = image.convert("LA")
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    if image.mode == "LAB":
        return _from_lab(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _grey16(image: Image.Image, clear: Any) -> tuple[Image.Image, NDArray[np.bool_] | None]:
    """16-bit grey as RGB, and which of its pixels are transparent."""
    tags = getattr(image, "tag_v2", {})
    depth = tags.get(_BITS, (16,))
    if (
        image.mode == "I"
        and image.format == "TIFF"
        and max(depth if isinstance(depth, tuple) else (depth,)) > 16
    ):
        raise PictureError("its pixels are 32-bit numbers, whose range is not known")
    grey = np.asarray(image).astype(np.int64).clip(0, 65535)
    mask = grey == clear if isinstance(clear, int) else None
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        grey = 65535 - grey
    return Image.fromarray((grey // 257).astype(np.uint8)).convert("RGB"), mask


def _is_clear(image: Image.Image, clear: Any, bits: int) -> NDArray[np.bool_] | None:
    """Which pixels have the one colour that is transparent; it is given in the numbers that the file stores.

    None where what is given is no colour. Of a sample of 16 bits the upper 8 are left.
    """
    colour = np.array(clear if isinstance(clear, tuple) else (clear,), dtype=object)
    if not all(isinstance(part, int) for part in colour.tolist()):
        return None
    values = colour.astype(np.int64)
    values = values >> 8 if bits == 16 else values * 255 // (2 ** min(bits, 8) - 1)
    pixels = np.asarray(image.convert("L") if image.mode == "1" else image)
    same: NDArray[np.bool_] = pixels.reshape(*pixels.shape[:2], -1) == values
    clear_ones: NDArray[np.bool_] = np.asarray(same.all(axis=2))
    return clear_ones


def _on_white(image: Image.Image, clear: NDArray[np.bool_] | None) -> Image.Image:
    if clear is not None:
        image.paste((255, 255, 255), mask=Image.fromarray(clear))
    return image


def _from_lab(image: Image.Image) -> Image.Image:
    """L*a*b* under D50, as TIFF stores it."""
    lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    found = ImageCms.profileToProfile(image, lab, rgb, outputMode="RGB")
    if found is None:  # only where it is asked to change the picture in place
        raise PictureError("its colours can't be converted")
    return found
