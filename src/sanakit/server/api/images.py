"""Pictures as clients send and want them: data URLs and base64 in; PNG, JPEG or WebP out, smaller if they like.

Every form keeps the machine-readable label of its PNG; the request in it stays in PNGs only.
"""

from __future__ import annotations

import base64
import binascii
import io
import re
from typing import Literal, get_args

from PIL import Image

from sanakit.base.errors import PictureError
from sanakit.pipeline.inputs import InputImage

Format = Literal["png", "jpeg", "webp"]
FORMATS: tuple[Format, ...] = get_args(Format)
MEDIA_TYPES = {name: f"image/{name}" for name in FORMATS}
THUMBNAIL_QUALITY = 82
_DATA_URL = re.compile(r"data:[\w.+-]{1,40}/[\w.+-]{1,80}(;[\w=.+-]{1,80}){0,4};base64,", re.IGNORECASE)


def decode_base64(text: str, name: str, most_pixels: int) -> InputImage:
    """Return the picture in a data URL or in plain base64. name: of it, in messages. Raises PictureError."""
    start = _DATA_URL.match(text)
    try:
        data = base64.b64decode(text[start.end() if start else 0 :], validate=True)
    except (binascii.Error, ValueError):
        raise PictureError(f"{name} is a picture in base64 or as a data: URL, and this is neither") from None
    return InputImage.decode(data, name, most_pixels)


def encode_base64(data: bytes) -> str:
    """Return bytes as base64 text."""
    return base64.b64encode(data).decode("ascii")


def data_url(data: bytes, media_type: str) -> str:
    """Return bytes as a data: URL."""
    return f"data:{media_type};base64,{encode_base64(data)}"


def convert(data: bytes, form: Format, *, quality: int = 100, width: int | None = None) -> bytes:
    """Return a PNG or JPEG of ours in another form, with its label.

    quality: 0 to 100, of JPEG and WebP. width: make it smaller, to this many pixels across; never larger.
    """
    with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
        image.load()
        label = image.info.get("xmp")
        shown: Image.Image = image.convert("RGB")
    if width is not None and width < shown.width:
        height = max(1, round(shown.height * width / shown.width))
        shown = shown.resize((width, height), Image.Resampling.LANCZOS)
    options = {} if form == "png" else {"quality": quality, **({"xmp": label} if label else {})}
    buffer = io.BytesIO()
    shown.save(buffer, form.upper(), **options)
    return buffer.getvalue()
