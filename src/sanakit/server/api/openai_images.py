"""OpenAI's images API below `/v1`: their client, and what is built on it, draws here by another base URL."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from sanakit.pipeline.request import ImageRequest
from sanakit.server.api.events import PULSE, EventStream, finish, format_event, listen, pictures_of
from sanakit.server.api.faults import fault_of, openai_body
from sanakit.server.api.images import convert, encode_base64
from sanakit.server.api.openai_bodies import (
    COMPLETED,
    PARTIAL,
    Call,
    CompletedEvent,
    ErrorEvent,
    ImageData,
    ImagesBody,
    ImagesParts,
    ImagesResponse,
    ModelRow,
    ModelRows,
    OpenAIFault,
    PartialImageEvent,
)
from sanakit.server.api.openai_edits import FORM_DOCUMENT, edit_inputs, form_files, form_values
from sanakit.server.api.picture_access import link_to
from sanakit.server.engine.jobs import Job, JobEvent, JobPicture
from sanakit.server.engine.subscriptions import Subscription
from sanakit.server.refusals import JobFailedError
from sanakit.server.service import Caller, Drawer, Viewer

_FAULTS: dict[int | str, dict[str, Any]] = {
    status: {"model": OpenAIFault} for status in (400, 401, 403, 404, 409, 413, 429, 500)
}
router = APIRouter(prefix="/v1", tags=["openai"], responses=_FAULTS)


@router.get("/models")
def list_models(caller: Viewer) -> ModelRows:
    """List the models that are offered."""
    created = int(caller.service.started)
    return ModelRows(
        data=[ModelRow(id=name, created=created) for name in caller.service.engine.catalogue.models]
    )


@router.get("/models/{model:path}")
def get_model(model: str, caller: Viewer) -> ModelRow:
    """Tell of one model."""
    caller.service.engine.catalogue.model(model)
    return ModelRow(id=model, created=int(caller.service.started))


@router.post("/images/generations", response_model=ImagesResponse)
async def generate_images(body: ImagesBody, caller: Drawer, request: Request) -> Response | ImagesResponse:
    """Draw pictures from a prompt; with `stream`, as events with partial pictures."""
    job = await run_in_threadpool(_submit, body, caller, {})
    return await _respond("generation", job, body, caller, request)


@router.post("/images/edits", response_model=ImagesResponse, openapi_extra=FORM_DOCUMENT)
async def edit_images(caller: Drawer, request: Request) -> Response | ImagesResponse:
    """Change a picture, or what is transparent in its mask or in itself."""
    async with request.form(max_files=32, max_fields=64) as form:
        body, (image, mask) = _edit_body(form_values(form)), await form_files(form)
    inputs = await run_in_threadpool(edit_inputs, image, mask, caller.service.settings.input_pixels)
    job = await run_in_threadpool(_submit, body, caller, inputs)
    return await _respond("edit", job, body, caller, request)


def _edit_body(values: dict[str, Any]) -> ImagesParts:
    try:
        return ImagesBody.model_validate(values)
    except ValidationError as error:
        rows = [
            {**row, "loc": ("body", *row["loc"])}
            for row in error.errors(include_url=False, include_input=False)
        ]
        raise RequestValidationError(rows) from None


def _submit(body: ImagesParts, caller: Caller, inputs: dict[str, Any]) -> Job:
    engine = caller.service.engine
    name = body.model or engine.catalogue.default
    fields = body.fields(engine.catalogue.model(name).defaults, engine.config.steps)
    return caller.submit([ImageRequest(**fields, **inputs)], name)[0]


async def _respond(
    call: Call, job: Job, body: ImagesParts, caller: Caller, request: Request
) -> Response | ImagesResponse:
    """Wait for a job and return its pictures, or a stream of them. Raises as `pictures_of`."""
    engine = caller.service.engine
    if body.stream:
        subscription = await run_in_threadpool(engine.subscribe, job.id, previews=bool(body.partial_images))
        lines = _lines(call, job, body, caller, subscription)
        return EventStream(subscription, lines, left=partial(engine.cancel, job.id))
    job = await finish(engine, job, request)
    pictures = pictures_of(job)
    base = str(request.base_url)
    data = [await run_in_threadpool(_data, picture, body, caller, base) for picture in pictures]
    return ImagesResponse(
        created=int(job.finished or job.created), data=data, output_format=body.form, quality=body.shown_quality,
        size=_size(pictures[0]), notes=[*body.notes, *job.notes],
    )  # fmt: skip


def _data(picture: JobPicture, body: ImagesParts, caller: Caller, base: str) -> ImageData:
    if body.response_format == "url":
        form = "" if body.form == "png" else f"format={body.form}&quality={body.compression}"
        return ImageData(url=link_to(picture.id, caller, base, form))
    return ImageData(b64_json=_base64(picture, body, caller))


def _base64(picture: JobPicture, body: ImagesParts, caller: Caller) -> str:
    png = caller.service.engine.picture(picture.id)
    return encode_base64(png if body.form == "png" else convert(png, body.form, quality=body.compression))


async def _lines(
    call: Call, job: Job, body: ImagesParts, caller: Caller, subscription: Subscription
) -> AsyncGenerator[str, None]:
    """Partial pictures at even distances, and each picture when it is done."""
    wanted, sent = body.partial_images or 0, 0
    shared: dict[str, Any] = {
        "created_at": int(job.created),
        "output_format": body.form,
        "quality": body.shown_quality,
    }
    async with aclosing(listen(subscription)) as events:
        async for event in events:
            if event is None:
                yield PULSE
            elif event.kind == "picture" and event.picture is not None:
                encoded, notes = (
                    await run_in_threadpool(_base64, event.picture, body, caller),
                    event.job.notes,
                )
                yield _line(CompletedEvent(type=COMPLETED[call], b64_json=encoded, size=_size(event.picture),
                                           notes=[*body.notes, *notes], **shared))  # fmt: skip
            elif event.preview is not None and sent < wanted and _is_due(event, sent, wanted):
                encoded = encode_base64(await run_in_threadpool(convert, event.preview, body.form))
                size = f"{job.request.width}x{job.request.height}"
                yield _line(PartialImageEvent(type=PARTIAL[call], b64_json=encoded, size=size,
                                              partial_image_index=sent, **shared))  # fmt: skip
                sent += 1
            elif event.kind in ("failed", "cancelled"):
                error = JobFailedError(event.message or "the job was cancelled")
                yield _line(ErrorEvent.model_validate(openai_body(fault_of(error))))


def _is_due(event: JobEvent, sent: int, wanted: int) -> bool:
    """Return whether the next partial picture is due: `wanted` of them divide the steps into equal parts."""
    return event.job.step * (wanted + 1) >= event.job.total * (sent + 1)


def _line(data: PartialImageEvent | CompletedEvent | ErrorEvent) -> str:
    return format_event(data.type, data.model_dump_json())


def _size(picture: JobPicture) -> str:
    return f"{picture.width}x{picture.height}"
