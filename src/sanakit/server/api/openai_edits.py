"""The form of OpenAI's edits: its texts as the fields of `ImagesBody`, its pictures as a source and a mask.

Theirs is the opposite of a mask of ours: what is transparent in it is drawn anew.
"""

from __future__ import annotations

from typing import Any

from starlette.datastructures import FormData, UploadFile

from sanakit.base.errors import PictureError, RequestError
from sanakit.base.json_text import parse_json
from sanakit.pipeline.inputs import InputImage
from sanakit.server.api.request_body import FIELDS

IMAGE, MASK = "image", "mask"
FORM_DOCUMENT = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [IMAGE, "prompt"],
                    "properties": {
                        IMAGE: {"type": "string", "format": "binary"},
                        MASK: {
                            "type": "string",
                            "format": "binary",
                            "description": "Transparent where to draw anew.",
                        },
                        "prompt": {"type": "string"},
                    },
                    "description": "All other fields are those of /v1/images/generations.",
                }
            }
        },
    }
}
"""What the OpenAPI document says of the form."""

_PARSED = {"n", "output_compression", "partial_images", "stream"} | {
    name for name, entry in FIELDS.items() if entry.kind is not str
}
"""Fields whose text in a form is JSON; the others are their text."""


def form_values(form: FormData) -> dict[str, Any]:
    """Return the texts of a form as fields; `name[]`, given several times, is a list. Raises RequestError."""
    found: dict[str, Any] = {}
    for key in form:
        name, values = key.removesuffix("[]"), form.getlist(key)
        if name in (IMAGE, MASK):
            continue
        texts = [value for value in values if isinstance(value, str)]
        if len(texts) != len(values) or (len(texts) > 1 and name == key):
            raise RequestError(f"the form gives {name[:40]!r} as a file, or several times")
        parsed = [_parsed(name, text) for text in texts]
        found[name] = parsed if name != key else parsed[0]
    return found


def _parsed(name: str, text: str) -> Any:
    try:
        return parse_json(text) if name in _PARSED else text
    except ValueError:
        return text  # which the field then refuses in its own words


async def form_files(form: FormData) -> tuple[bytes, bytes | None]:
    """Return the bytes of the picture and of its mask. Raises RequestError unless there is one picture."""
    images = [*form.getlist(IMAGE), *form.getlist(f"{IMAGE}[]")]
    if len(images) != 1 or not isinstance(images[0], UploadFile):
        raise RequestError(f"an edit takes one file as `image`, not {len(images)}")
    mask = form.get(MASK)
    if mask is not None and not isinstance(mask, UploadFile):
        raise RequestError("the mask of an edit is a file")
    return await images[0].read(), None if mask is None else await mask.read()


def edit_inputs(image: bytes, mask: bytes | None, most_pixels: int) -> dict[str, InputImage]:
    """Return `source` and, if something is transparent, `mask`. Raises PictureError."""
    source = InputImage.decode(image, IMAGE, most_pixels)
    if mask is not None:
        given = InputImage.decode(mask, MASK, most_pixels)
        if given.image.mode != "RGBA":
            raise PictureError("the mask must have an alpha channel: what is transparent in it is drawn anew")
        return {"source": source, "mask": _mask_of(given)}
    if source.image.mode != "RGBA" or source.image.getchannel("A").getextrema() == (255, 255):
        return {"source": source}
    return {"source": InputImage.of(source.image.convert("RGB"), IMAGE), "mask": _mask_of(source)}


def _mask_of(picture: InputImage) -> InputImage:
    """White where the picture is transparent."""
    return InputImage.of(picture.image.getchannel("A").point(lambda level: 255 - level), MASK)
