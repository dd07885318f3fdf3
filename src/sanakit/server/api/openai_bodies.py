"""The bodies of OpenAI's images API, and what becomes of their words here.

https://platform.openai.com/docs/api-reference/images. Every plain field of our own requests, such as `seed` or `steps`,
may stand beside theirs; clients send it as `extra_body`.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from sanakit.base.sizes import Size
from sanakit.pipeline.request import Defaults
from sanakit.server.api.images import Format
from sanakit.server.api.request_body import FIELDS, MOST_TEXT, field_of

MOST_PICTURES = 10
MOST_PARTIAL = 3

Quality = Literal["auto", "standard", "low", "medium", "high", "hd", "xhigh", "max"]
Shown = Literal["low", "medium", "high", "xhigh", "max"]
Call = Literal["generation", "edit"]
Partial = Literal["image_generation.partial_image", "image_edit.partial_image"]
Completed = Literal["image_generation.completed", "image_edit.completed"]
PARTIAL: dict[Call, Partial] = {
    "generation": "image_generation.partial_image",
    "edit": "image_edit.partial_image",
}
COMPLETED: dict[Call, Completed] = {
    "generation": "image_generation.completed",
    "edit": "image_edit.completed",
}
"""Call -> the names of its events."""

_STEPS: dict[Quality, tuple[Shown, float]] = {
    "low": ("low", 0.5), "auto": ("medium", 1), "standard": ("medium", 1), "medium": ("medium", 1), "high": ("high", 2),
    "hd": ("high", 2), "xhigh": ("xhigh", 3), "max": ("max", 4),
}  # fmt: skip
"""Quality -> what a response calls it, and the steps as a multiple of the model's own."""

_NO_EFFECT = ("moderation", "style", "input_fidelity", "complexity")
_THEIRS = ("prompt", "count", "width", "height")
"""Our fields that have another form in their API."""

_SEEDS = 2**32  # random ones stay below: every client's numbers hold them


class ImagesParts(BaseModel):
    """The fields of both calls. Nulls mean "left open"."""

    model_config = ConfigDict(extra="forbid", strict=True)
    prompt: str = Field(max_length=MOST_TEXT)
    model: str | None = None
    n: int | None = Field(None, ge=1, le=MOST_PICTURES)
    size: str | None = Field(None, description="`auto`, or WIDTHxHEIGHT in multiples of 32.", max_length=16)
    quality: Quality | None = Field(
        None, description="Half, once, two, three or four times the model's own steps."
    )
    output_format: Format | None = None
    output_compression: int | None = Field(None, ge=0, le=100, description="The quality of JPEG and WebP.")
    response_format: Literal["url", "b64_json"] | None = None
    background: Literal["transparent", "opaque", "auto"] | None = None
    stream: bool | None = None
    partial_images: int | None = Field(None, ge=0, le=MOST_PARTIAL)
    user: str | None = Field(None, max_length=MOST_TEXT)
    safety_identifier: str | None = Field(None, max_length=MOST_TEXT)
    moderation: str | None = None
    style: str | None = None
    input_fidelity: str | None = None
    complexity: str | None = None

    @property
    def form(self) -> Format:
        """The form of the pictures."""
        return self.output_format or "png"

    @property
    def compression(self) -> int:
        """Their quality if they are JPEG or WebP."""
        return 100 if self.output_compression is None else self.output_compression

    @property
    def shown_quality(self) -> Shown:
        """The quality as a response names it."""
        return _STEPS[self.quality or "auto"][0]

    @property
    def notes(self) -> list[str]:
        """A sentence for each field that was given and changes nothing."""
        idle = [name for name in _NO_EFFECT if getattr(self, name) is not None]
        found = [f"{name} has no effect here." for name in idle]
        if self.background == "transparent":
            found.append("background has no effect here: pictures are opaque.")
        if self.output_compression is not None and self.form == "png":
            found.append("output_compression has no effect on a png.")
        if "steps" in self.model_fields_set and self.quality is not None:
            found.append("quality has no effect beside steps.")
        return found

    def fields(self, defaults: Defaults, most_steps: int) -> dict[str, Any]:
        """Return the fields of our request; the seed is random unless it is given. Raises RequestError for a size."""
        own = {
            name: getattr(self, name)
            for name in self.model_fields_set
            if name in FIELDS and name not in _THEIRS
        }
        steps = {}
        if self.quality is not None and not {"steps", "angles"} & own.keys():
            steps = {"steps": min(max(1, round(defaults.steps * _STEPS[self.quality][1])), most_steps)}
        size = {}
        if self.size not in (None, "auto"):
            found = Size.parse(self.size)
            size = {"width": found.width, "height": found.height}
        return {
            "prompt": self.prompt,
            "count": self.n or 1,
            "seed": secrets.randbelow(_SEEDS),
            **size,
            **steps,
            **own,
        }


if TYPE_CHECKING:
    ImagesBody = ImagesParts
else:
    ImagesBody = create_model(
        "ImagesRequest",
        __base__=ImagesParts,
        **{name: field_of(entry) for name, entry in FIELDS.items() if name not in _THEIRS},
    )


class ImageData(BaseModel):
    """A picture of a response: as base64, or where it lies."""

    b64_json: str | None = None
    url: str | None = None


class ImagesResponse(BaseModel):
    """Pictures. notes: on fields of the request that have no effect here, and on what the model can't read."""

    created: int
    data: list[ImageData]
    background: Literal["opaque"] = "opaque"
    output_format: Format
    quality: Shown
    size: str
    notes: list[str]


class ModelRow(BaseModel):
    """A model that is offered. created: when this server started."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["sanakit"] = "sanakit"


class ModelRows(BaseModel):
    """The models that are offered, the default first."""

    object: Literal["list"] = "list"
    data: list[ModelRow]


class OpenAIFaultDetail(BaseModel):
    """What is wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIFault(BaseModel):
    """The body of every response that is an error."""

    error: OpenAIFaultDetail


class ImageEvent(BaseModel):
    """What every event with a picture tells."""

    b64_json: str
    background: Literal["opaque"] = "opaque"
    created_at: int
    output_format: Format
    quality: Shown
    size: str


class PartialImageEvent(ImageEvent):
    """A picture as it is so far. partial_image_index: its number, from 0."""

    type: Partial
    partial_image_index: int


class CompletedEvent(ImageEvent):
    """A finished picture. notes: as in `ImagesResponse`."""

    type: Completed
    notes: list[str]


class ErrorEvent(OpenAIFault):
    """Why there are no more pictures; nothing follows."""

    type: Literal["error"] = "error"


def events_of(call: Call) -> dict[str, type[BaseModel]]:
    """Name -> data of the events of a call."""
    return {PARTIAL[call]: PartialImageEvent, COMPLETED[call]: CompletedEvent, "error": ErrorEvent}
