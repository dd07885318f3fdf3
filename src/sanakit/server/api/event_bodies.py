"""The data of the events of a job, by their kinds, and what the OpenAPI document says of streams of events.

OpenAPI 3.2 describes a stream by the schema of its items, each an event with its name and its data, which is JSON in a
string; FastAPI 0.165 writes that for streams of one kind of data, and here each event has its own.
https://spec.openapis.org/oas/v3.2.0.html#server-sent-event-streams
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from sanakit.server.api.bodies import JobBody, PictureBody
from sanakit.server.api.images import data_url
from sanakit.server.engine.jobs import EventKind, JobEvent

MEDIA_TYPE = "text/event-stream"
_PLACE = "#/components/schemas/{model}"


class EventBody(BaseModel):
    """The data of any event: the job right after it, and what the event brings besides."""

    job: JobBody
    preview: str | None
    picture: PictureBody | None
    message: str | None

    @classmethod
    def of(cls, event: JobEvent) -> Self:
        """Return the data of an event."""
        return cls(
            job=JobBody.of(event.job),
            preview=None if event.preview is None else data_url(event.preview, "image/jpeg"),
            picture=None if event.picture is None else PictureBody.of(event.picture),
            message=event.message,
        )


class StateEvent(EventBody):
    """The job alone: where it is in the queue, that it began or ended."""

    preview: None
    picture: None
    message: None


class StepEvent(EventBody):
    """A step was made. preview: the picture so far, a small JPEG as a data: URL, if previews were asked for."""

    picture: None
    message: None


class PictureEvent(EventBody):
    """A picture is finished."""

    preview: None
    picture: PictureBody
    message: None


class MessageEvent(EventBody):
    """A sentence: a note, or why the job failed."""

    preview: None
    picture: None
    message: str


EVENTS: Mapping[EventKind, type[EventBody]] = {
    "snapshot": StateEvent, "queued": StateEvent, "started": StateEvent, "step": StepEvent, "picture": PictureEvent,
    "note": MessageEvent, "done": StateEvent, "failed": MessageEvent, "cancelled": StateEvent,
}  # fmt: skip
"""Kind, which is the name of the event in the stream -> its data."""


def describe_stream(
    document: dict[str, Any], operation: str, events: Mapping[Any, type[BaseModel]], about: str
) -> None:
    """Say in an OpenAPI document what the events of an operation hold. events: name -> data."""
    found, schemas = models_json_schema(
        [(model, "serialization") for model in dict.fromkeys(events.values())], ref_template=_PLACE
    )
    known = document["components"]["schemas"]
    known |= {name: schema for name, schema in schemas.get("$defs", {}).items() if name not in known}
    items = [_item(name, found[model, "serialization"]) for name, model in events.items()]
    content = _operation(document, operation)["responses"]["200"].setdefault("content", {})
    content[MEDIA_TYPE] = {"itemSchema": {"oneOf": items, "description": about}}


def _item(name: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of an event."""
    text = {"type": "string", "contentMediaType": "application/json", "contentSchema": dict(data)}
    return {
        "type": "object", "required": ["event", "data"], "properties": {"event": {"const": name}, "data": text},
    }  # fmt: skip


def _operation(document: dict[str, Any], name: str) -> dict[str, Any]:
    every = (each for methods in document["paths"].values() for each in methods.values())
    found: dict[str, Any] = next(each for each in every if each["operationId"] == name)
    return found
