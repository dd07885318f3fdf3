"""Encoded images to RGB pixels with Pillow: upright, alpha on white, 16 bits to 8, CMYK and L*a*b* converted.

Files from strangers are opened here: only raster formats are tried, sizes are checked before anything is decoded, and
every failure is a PictureError.
"""

from __future__ import annotations

import io
import struct
import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageCms
from torch import Tensor

from sanakit.base.errors import PictureError
from sanakit.data import png

SUFFIXES = frozenset(
    (
        "jpg", "jpeg", "jpe", "jfif", "png", "apng", "webp", "avif", "gif", "bmp", "dib", "tif", "tiff",
        "jp2", "j2k", "jpx", "ppm", "pgm", "pbm", "pnm", "mpo",
    )
)  # fmt: skip
"""Lower-case endings of the files that count as pictures."""

MOST_PIXELS = 178_956_970
"""Larger pictures are refused before they are decoded; Pillow suspects a decompression bomb at the same size."""

_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "JPEG2000", "PPM")
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)
_PREFIX = 16
_WIDTH_TAG = 256  # of TIFF

_WITH_ALPHA = ("RGBA", "LA", "La", "PA", "RGBa")
_PHOTOMETRIC = 262  # the TIFF tag that says what 0 means
_BITS = 258
_WHITE_IS_ZERO = 0


class UnknownFormError(PictureError):
    """The first bytes are those of no form that is read here: more of them would not help."""


def picture_size(data: bytes, tail: bytes | None = None) -> tuple[int, int]:
    """(width, height) in pixels of the upright picture, from the head of a file.

    tail: the file's last bytes, if `data` is not all of it. Raises PictureError.
    """
    image = _open(data)
    width, height = image.size
    if image.format == "TIFF" and width != _stored_width(image):  # Pillow has turned it already
        return width, height
    return (
        (height, width)
        if _orientation(image, data if tail is None else tail) in _SIDEWAYS
        else (width, height)
    )


def cut_picture(data: bytes, resized: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    """Return the RGB picture resized to `resized` (width, height) and cut to `box` (left, top, right, bottom).

    Only the box is computed; pixels are those of resizing all and cutting then. JPEGs of at least four times the size
    are decoded at half or less first. Raises PictureError.
    """
    image = _decode(data, resized)
    across, down = image.width / resized[0], image.height / resized[1]
    source = (
        box[0] * across,
        box[1] * down,
        min(box[2] * across, image.width),
        min(box[3] * down, image.height),
    )
    size = (box[2] - box[0], box[3] - box[1])
    return image.resize(size, Image.Resampling.BICUBIC, box=source)


def thumbnail(
    data: bytes, size: tuple[int, int], resampling: Image.Resampling = Image.Resampling.BOX
) -> Image.Image:
    """Squeeze all of a picture to `size` (width, height), RGB: every byte is decoded. Raises PictureError."""
    return _decode(data, size).resize(size, resampling)


def ignore_warnings() -> None:
    """Silence Pillow's warnings about odd EXIF data and the like (one per picture); for commands."""
    warnings.filterwarnings("ignore", module=r"PIL\.")


def to_tensor(image: Image.Image) -> Tensor:
    """Return an RGB picture as uint8 [3, H, W]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def to_image(picture: Tensor) -> Image.Image:
    """Return the reverse of `to_tensor`."""
    return Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())


def _open(data: bytes) -> Image.Image:
    """Return the picture with only its head read."""
    try:
        image = _identify(data)
    except PictureError:
        raise
    except MemoryError:
        raise PictureError("there is not enough memory for it") from None
    except Exception as error:  # Pillow's plug-ins raise whatever a broken file makes them trip over
        raise PictureError(f"it can't be read as a picture ({_reason(error)})") from None
    if image is None:
        raise PictureError("it isn't a picture of a known form, or its head is broken")
    if image.width < 1 or image.height < 1:
        raise PictureError(f"it has {image.width} x {image.height} pixels")
    if image.width * image.height > MOST_PIXELS:
        raise PictureError(f"it has {image.width} x {image.height} pixels, more than {MOST_PIXELS:,}")
    if image.mode == "F":
        raise PictureError("its pixels are floating-point numbers, whose range is not known")
    return image


def _identify(data: bytes) -> Image.Image | None:
    """`Image.open` for our formats alone, without its warning of large pictures, which threads could not switch off."""
    Image.init()
    known = False
    for name in _FORMATS:
        factory, accept = Image.OPEN.get(name, (None, None))
        accepted = factory is not None and (accept is None or accept(data[:_PREFIX]))
        if factory is None or not accepted or isinstance(accepted, str):  # a str says what is not installed
            continue
        known = True
        try:
            content = png.pixels_only(data) if name == "PNG" else data
            image: Image.Image = factory(io.BytesIO(content), "")
            return image
        except (SyntaxError, IndexError, TypeError, struct.error):  # as Pillow has it: not of this form
            continue
    if not known:
        raise UnknownFormError("it isn't a picture of a known form")
    return None


def _decode(data: bytes, wanted: tuple[int, int]) -> Image.Image:
    """Return the whole picture, upright and RGB, decoded at no less than twice the size `wanted` (width, height)."""
    image = _open(data)
    turn = _orientation(image, data)
    width, height = (2 * side for side in wanted)
    try:
        image.draft(None, (height, width) if turn in _SIDEWAYS else (width, height))
        image.load()
        if image.format == "TIFF":  # Pillow turns these itself, and forgets the orientation then
            turn = _orientation(image, data)
        image = to_rgb(image, png.sample_bits(data) if image.format == "PNG" else 8)
        return image.transpose(_TURNS[turn]) if turn in _TURNS else image
    except PictureError:
        raise
    except MemoryError:
        raise PictureError("there is not enough memory for it") from None
    except Exception as error:  # as above
        raise PictureError(f"it is broken ({_reason(error)})") from None


def _orientation(image: Image.Image, data: bytes) -> int:
    """1 to 8, as in EXIF; 1 if nothing is said or what is said can't be read. data: the end of the file.

    Of a PNG its head counts, then what stands behind its pixels.
    """
    hints = ("exif", "Raw profile type exif", "Raw profile type APP1", "XML:com.adobe.xmp", "xmp")
    try:
        if image.format == "PNG" and not any(hint in image.info for hint in hints):
            behind = png.orientation_behind(data[-png.TAIL :])
            if behind is None:
                return 1
            exif = Image.Exif()
            exif.load(behind)
        else:
            exif = image.getexif()
        found = exif.get(_ORIENTATION, 1)
    except Exception:  # EXIF comes from many programs: if it can't be parsed, it is ignored
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _stored_width(image: Image.Image) -> int:
    tags = getattr(image, "tag_v2", {})
    return int(tags.get(_WIDTH_TAG, image.width))


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def to_rgb(image: Image.Image, bits: int = 8) -> Image.Image:
    """Return a decoded picture as RGB. bits: of a sample as stored, for PNG.

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
    """Return which pixels have the one colour that is transparent; it is given in the numbers that the file stores.

    None if what is given isn't a colour. Of a sample of 16 bits the upper 8 are left.
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
