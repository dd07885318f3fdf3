"""Our own API below `/api`: jobs with everything that a request can say, their events, and pictures."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Path, Query, Request, Response

from sanakit.base.errors import RequestError
from sanakit.pipeline.png import decode_record
from sanakit.pipeline.request import ImageRequest
from sanakit.server.api.bodies import (
    FAULTS,
    Axis,
    Capabilities,
    EventBody,
    GridBody,
    GridOrder,
    JobBody,
    JobList,
    JobOrder,
    ReadBody,
)
from sanakit.server.api.capabilities import capabilities
from sanakit.server.api.events import PULSE, EventStream, format_event, listen
from sanakit.server.api.images import MEDIA_TYPES, THUMBNAIL_QUALITY, Format, convert
from sanakit.server.api.picture_access import PictureId, VisiblePicture, open_session
from sanakit.server.api.request_body import checked
from sanakit.server.api.translate import image_request
from sanakit.server.engine.jobs import JobState
from sanakit.server.engine.subscriptions import Subscription
from sanakit.server.service import Drawer, ServiceOf, Viewer

router = APIRouter(prefix="/api", tags=["native"], responses=FAULTS)

JobId = Annotated[str, Path(max_length=64, description="The id of a job.")]

_FOREVER = "private, max-age=31536000, immutable"  # a picture never changes
_ASK_AGAIN = "private, no-cache"  # but who may see it does: with keys, a browser asks before it shows its copy
_PICTURES: dict[int | str, dict[str, Any]] = {200: {"content": {kind: {} for kind in MEDIA_TYPES.values()}}}
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {}}, "description": "Events whose data are an EventBody."}
}
_PNG_BODY = {"requestBody": {"required": True, "content": {"image/png": {}, "application/octet-stream": {}}}}


@router.get("/capabilities")
def get_capabilities(caller: Viewer) -> Capabilities:
    """Tell what this server offers."""
    return capabilities(caller.service)


@router.post("/jobs", status_code=201)
def create_job(order: JobOrder, caller: Drawer) -> JobBody:
    """Ask for pictures. What is accepted is drawn, even after a restart of the server."""
    request = image_request(caller.service, order.request, order.inputs)
    (job,) = caller.submit([request], order.model, order.live)
    return JobBody.of(job)


@router.get("/jobs")
def list_jobs(
    caller: Viewer,
    state: JobState | None = None,
    text: Annotated[str | None, Query(max_length=200, description="Words that the prompts hold.")] = None,
    before: Annotated[str | None, Query(max_length=64, description="Only jobs older than this one.")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> JobList:
    """List jobs, the newest first."""
    found = caller.service.engine.list(owner=caller.sees, state=state, text=text, before=before, limit=limit)
    return JobList(jobs=[JobBody.of(job) for job in found])


@router.get("/jobs/{job_id}")
def get_job(job_id: JobId, caller: Viewer) -> JobBody:
    """Tell how far a job is."""
    return JobBody.of(caller.service.engine.get(job_id, caller.sees))


@router.post("/jobs/{job_id}/cancel")
def cancel_job(job_id: JobId, caller: Drawer) -> JobBody:
    """End a job: at once if it waits, at its next step if it is drawn, not at all if it is finished."""
    return JobBody.of(caller.service.engine.cancel(job_id, caller.changes))


@router.delete("/jobs/{job_id}", status_code=204)
def delete_job(job_id: JobId, caller: Drawer) -> None:
    """Forget a job and its pictures."""
    caller.service.engine.delete(job_id, caller.changes)


@router.get("/jobs/{job_id}/events", response_class=Response, responses=_EVENTS)
def watch_job(
    job_id: JobId,
    caller: Viewer,
    previews: Annotated[bool, Query(description="Send small pictures with the steps.")] = False,
    leave: Annotated[
        Literal["keep", "cancel"], Query(description="Whether the job goes on if this client leaves.")
    ] = "keep",
) -> EventStream:
    """Tell what happens to a job, beginning with how far it is, until it ends."""
    engine = caller.service.engine
    if leave == "cancel":
        engine.get(job_id, caller.changes)
    subscription = engine.subscribe(job_id, caller.sees, previews=previews)
    left = partial(engine.cancel, job_id) if leave == "cancel" else None
    return EventStream(subscription, _lines(subscription), left)


async def _lines(subscription: Subscription) -> AsyncGenerator[str, None]:
    async with aclosing(listen(subscription)) as events:
        async for event in events:
            yield PULSE if event is None else format_event(event.kind, EventBody.of(event).model_dump_json())


@router.post("/session", status_code=204)
def start_session(caller: Viewer, request: Request, response: Response) -> None:
    """Let the browser that asks show pictures: <img> sends no key, so it gets a cookie, which is good for pictures."""
    open_session(caller, request, response)


@router.get("/images/{picture_id}", response_class=Response, responses=_PICTURES)
def get_image(
    picture_id: PictureId,
    png: VisiblePicture,
    request: Request,
    service: ServiceOf,
    width: Annotated[
        int | None, Query(ge=16, le=2048, description="Smaller, this many pixels across.")
    ] = None,
    form: Annotated[Format | None, Query(alias="format", description="png, or webp with a width.")] = None,
    quality: Annotated[int, Query(ge=0, le=100, description="Of JPEG and WebP.")] = THUMBNAIL_QUALITY,
) -> Response:
    """Return a picture: the PNG with its request inside, or another form or a smaller one, with its label alone."""
    form = form or ("png" if width is None else "webp")
    if form == "png" and width is not None:
        raise RequestError("a smaller picture is a webp or a jpeg: choose a format, or leave width out")
    tag = f'"{picture_id}-{form}-{width}-{quality}"'
    headers = {"ETag": tag, "Cache-Control": _FOREVER if service.is_open else _ASK_AGAIN}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    data = png if form == "png" else convert(png, form, quality=quality, width=width)
    return Response(data, media_type=MEDIA_TYPES[form], headers=headers)


@router.get("/images/{picture_id}/metadata")
def get_metadata(png: VisiblePicture) -> dict[str, Any]:
    """Return the record in a picture: its request, and how it was made."""
    return decode_record(png, "the picture").to_json()


@router.post("/read", openapi_extra=_PNG_BODY)
def read_picture(data: Annotated[bytes, Body(media_type="image/png")], caller: Viewer) -> ReadBody:
    """Return what a picture was made from; the picture isn't kept."""
    record = decode_record(data, "the picture")
    return ReadBody(
        request=record.request.to_json(), model=record.made.get("model"), notes=list(record.notes)
    )


@router.post("/grid", status_code=201)
def create_grid(order: GridOrder, caller: Drawer) -> GridBody:
    """Ask for the same pictures with every pair of values of two fields."""
    service = caller.service
    most, cells = service.settings.cells, len(order.x.values) * len(order.y.values if order.y else [None])
    if cells > most:
        raise RequestError(f"a grid may have {most} jobs here, not {cells}")
    base = image_request(service, order.request, order.inputs)
    rows = [base] if order.y is None else _along(base, order.y)
    requests = [request for row in rows for request in _along(row, order.x)]
    jobs, across = [JobBody.of(job) for job in caller.submit(requests, order.model)], len(order.x.values)
    return GridBody(jobs=[jobs[start : start + across] for start in range(0, len(jobs), across)])


def _along(request: ImageRequest, axis: Axis) -> list[ImageRequest]:
    """The request with each value of an axis. Raises RequestError."""
    return [request.replace(**{axis.field: checked(axis.field, value)}) for value in axis.values]
