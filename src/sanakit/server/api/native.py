"""Our own API below `/api`: jobs with everything that a request can say, their events, and grids of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Response

from sanakit.base.errors import RequestError
from sanakit.pipeline.request import ImageRequest
from sanakit.server.api.bodies import (
    FAULTS,
    Axis,
    Capabilities,
    GridBody,
    GridOrder,
    JobBody,
    JobList,
    JobOrder,
    RecreateOrder,
)
from sanakit.server.api.capabilities import capabilities
from sanakit.server.api.event_bodies import EVENTS, MEDIA_TYPE
from sanakit.server.api.events import PULSE, EventStream, format_event, listen
from sanakit.server.api.request_body import checked
from sanakit.server.api.translate import image_request
from sanakit.server.engine.jobs import JobState
from sanakit.server.engine.subscriptions import Subscription
from sanakit.server.service import Drawer, Viewer

router = APIRouter(prefix="/api", tags=["native"], responses=FAULTS)

JobId = Annotated[str, Path(max_length=64, description="The id of a job.")]

_STREAM: dict[int | str, dict[str, Any]] = {200: {"content": {MEDIA_TYPE: {}}}}


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


@router.post("/jobs/{job_id}/recreate", status_code=201)
def recreate_job(job_id: JobId, order: RecreateOrder, caller: Drawer) -> JobBody:
    """Ask for the pictures of a job again, with the pictures that it was given; plain fields may be others."""
    engine = caller.service.engine
    found = engine.get(job_id, caller.sees)
    request = engine.complete(found.request).replace(**order.request.values)
    (job,) = caller.submit([request], found.model)
    return JobBody.of(job)


@router.delete("/jobs/{job_id}", status_code=204)
def delete_job(job_id: JobId, caller: Drawer) -> None:
    """Forget a job and its pictures."""
    caller.service.engine.delete(job_id, caller.changes)


@router.get("/jobs/{job_id}/events", response_class=Response, responses=_STREAM)
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
            if event is None:
                yield PULSE
            else:
                yield format_event(event.kind, EVENTS[event.kind].of(event).model_dump_json())


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
    """Return the request with each value of an axis. Raises RequestError."""
    return [request.replace(**{axis.field: checked(axis.field, value)}) for value in axis.values]
