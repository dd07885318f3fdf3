"""Pictures below `/api`: those of jobs, those that jobs were given, and what is written inside of one."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Query, Request, Response

from sanakit.base.errors import RequestError
from sanakit.pipeline.png import decode_record
from sanakit.server.api.bodies import FAULTS, ReadBody
from sanakit.server.api.images import MEDIA_TYPES, THUMBNAIL_QUALITY, Format, convert
from sanakit.server.api.native import JobId
from sanakit.server.api.picture_access import PictureId, VisiblePicture, open_session
from sanakit.server.service import ServiceOf, Viewer

router = APIRouter(prefix="/api", tags=["native"], responses=FAULTS)

_FOREVER = "private, max-age=31536000, immutable"  # a picture never changes
_ASK_AGAIN = (
    "private, no-cache"  # but who may see it does: with keys, a browser asks before it shows its copy
)
_PICTURES: dict[int | str, dict[str, Any]] = {200: {"content": {kind: {} for kind in MEDIA_TYPES.values()}}}
_INPUT: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": {}}}}
_PNG_BODY = {"requestBody": {"required": True, "content": {"image/png": {}, "application/octet-stream": {}}}}


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


@router.get("/jobs/{job_id}/inputs/{sha256}", response_class=Response, responses=_INPUT)
def get_input(
    job_id: JobId,
    sha256: Annotated[str, Path(max_length=64, description="Of a picture in its request.")],
    caller: Viewer,
) -> Response:
    """Return a picture that a job was given: its source, its mask, or one that steers it."""
    png = caller.service.engine.input(job_id, sha256, caller.sees)
    return Response(png, media_type="image/png", headers={"Cache-Control": _ASK_AGAIN})


@router.post("/read", openapi_extra=_PNG_BODY)
def read_picture(data: Annotated[bytes, Body(media_type="image/png")], caller: Viewer) -> ReadBody:
    """Return what a picture was made from; the picture isn't kept."""
    record = decode_record(data, "the picture")
    return ReadBody(
        request=record.request.to_json(), model=record.made.get("model"), notes=list(record.notes)
    )
