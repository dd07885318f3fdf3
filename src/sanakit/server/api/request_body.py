"""An image request as clients write it in JSON: a model made of the fields of `ImageRequest`, with their own checks.

It documents the bounds of these checks, and refuses in their words. Files are no part of it: pictures come beside it,
LoRAs and ControlNets by names that the server offers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema, create_model

from sanakit.base.errors import InputError, RequestError
from sanakit.base.sizes import SIZE_STEP
from sanakit.data.annotators import ANNOTATORS
from sanakit.flow import SOLVERS
from sanakit.pipeline.control import FITS, MOST_CONTROLS, MOST_SCALE
from sanakit.pipeline.fields import Number, RequestField, Side, Whole
from sanakit.pipeline.loras import MAX_LORAS, MAX_WEIGHT
from sanakit.pipeline.regions import MAX_REGIONS
from sanakit.pipeline.request import request_fields

MOST_TEXT = 32_000
"""Characters of a prompt, the bound of OpenAI's API: longer ones are no prompts, and tokenising them takes long."""

_STRICT = ConfigDict(extra="forbid", strict=True)
_KINDS: dict[Any, dict[str, Any]] = {
    str: {"type": "string", "maxLength": MOST_TEXT},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    tuple[int, ...]: {"type": "array", "items": {"type": "integer"}},
    tuple[float, ...]: {"type": "array", "items": {"type": "number"}},
    tuple[float, float]: {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2},
}


Value = TypeVar("Value")


def in_field(make: Callable[[Any], Value], value: Any) -> Value:
    """Return `make(value)` with what is refused as a ValueError, by which pydantic knows the field."""
    try:
        return make(value)
    except InputError as error:
        raise ValueError(str(error)) from error


def checked(name: str, value: Any) -> Any:
    """Return a value of JSON as that of a field of a request. Raises RequestError."""
    entry = FIELDS.get(name)
    if entry is None:
        raise RequestError(
            f"there is no field of plain values with this name: choose one of {', '.join(FIELDS)}"
        )
    if value is None and entry.default is None:
        return None
    found = entry.from_plain(value)
    entry.check(name, found)
    if isinstance(found, str) and len(found) > MOST_TEXT:
        raise RequestError(f"{name} has {len(found):,} characters, and {MOST_TEXT:,} are read at most")
    return found


def _schema(entry: RequestField) -> dict[str, Any]:
    """Return what the OpenAPI document says of a field."""
    bounds: dict[str, Any] = {}
    match entry.check:
        case Whole(low, high):
            bounds = {"minimum": low, "maximum": high}
        case Number(high):
            bounds = {"minimum": 0, "maximum": high}
        case Side(high):
            bounds = {"minimum": SIZE_STEP, "maximum": high, "multipleOf": SIZE_STEP}
    if entry.name == "solver":
        bounds = {"enum": list(SOLVERS)}
    schema = {**_KINDS[entry.kind], **bounds}
    return {"anyOf": [schema, {"type": "null"}]} if entry.default is None else schema


def field_of(entry: RequestField) -> tuple[Any, Any]:
    """Return the annotation and the default of a field in a model."""
    check = PlainValidator(partial(in_field, partial(checked, entry.name)))
    default = ... if entry.default is dataclasses.MISSING else entry.to_plain(entry.default)
    return Annotated[Any, check, WithJsonSchema(_schema(entry))], Field(default, description=entry.help)


def _change_of(entry: RequestField) -> tuple[Any, Any]:
    """Return the same of a field that is there already: left open it stays, for which a document has no word."""
    annotation, _ = field_of(entry)
    return annotation, Field(None, description=entry.help, json_schema_extra=_drop_default)


def _drop_default(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


_Range = Annotated[tuple[int, int, float], Field(strict=False)]  # JSON has no tuples


class LoraChoice(BaseModel):
    """A LoRA that the server offers. sha256: of its file, as the record of a picture has it; another is refused."""

    model_config = _STRICT
    name: str
    weight: float = Field(1.0, ge=-MAX_WEIGHT, le=MAX_WEIGHT)
    blocks: list[_Range] = Field([], description="First and last block, and a factor there.")
    sha256: str | None = None


class ControlChoice(BaseModel):
    """A ControlNet that the server offers, and a picture.

    picture: a data: URL, or base64. annotator: makes the control picture of it; null if it is one already.
    """

    model_config = _STRICT
    name: str
    picture: str
    annotator: str | None = Field(None, json_schema_extra={"enum": [*ANNOTATORS, None]})
    scale: float = Field(1.0, ge=0, le=MOST_SCALE)
    start: float = Field(0.0, ge=0, le=1)
    end: float = Field(1.0, ge=0, le=1)
    fit: str = Field(FITS[0], json_schema_extra={"enum": list(FITS)})


class RegionChoice(BaseModel):
    """A box with words of its own: left, top, width, height, in pixels, or in fractions if none is above 1."""

    model_config = _STRICT
    box: list[float] = Field(min_length=4, max_length=4)
    prompt: str = Field(validation_alias=AliasChoices("prompt", "text"), max_length=MOST_TEXT)


class PlainValues(BaseModel):
    """The fields of a request that are plain values."""

    model_config = _STRICT

    @property
    def values(self) -> dict[str, Any]:
        """Those that were given."""
        return {name: getattr(self, name) for name in self.model_fields_set if name in FIELDS}


class RequestParts(PlainValues):
    """What a request is made of besides plain values."""

    loras: list[LoraChoice] = Field([], max_length=MAX_LORAS)
    controls: list[ControlChoice] = Field([], max_length=MOST_CONTROLS)
    regions: list[RegionChoice] = Field([], max_length=MAX_REGIONS)


class Inputs(BaseModel):
    """Pictures of a request, each as a data: URL or in base64."""

    model_config = _STRICT
    source: str | None = Field(default=None, description="The picture to change.")
    mask: str | None = Field(
        default=None, description="White where to draw anew, black where to keep every pixel."
    )


FIELDS = {entry.name: entry for entry in request_fields() if entry.kind in _KINDS}
"""Name -> field of plain values; those of files and parts have a form of their own here."""

if TYPE_CHECKING:
    RequestBody = RequestParts
    RequestChanges = PlainValues
else:
    RequestBody = create_model(
        "ImageRequest",
        __base__=RequestParts,
        __doc__="A request for one or several pictures; fields that are left open are the model's own.",
        **{name: field_of(entry) for name, entry in FIELDS.items()},
    )
    RequestChanges = create_model(
        "RequestChanges",
        __base__=PlainValues,
        __doc__="Fields of a request that is there already; those that are left open stay as they are.",
        **{name: _change_of(entry) for name, entry in FIELDS.items()},
    )
