"""The page: the files of the folder `page`, read once. A request's path is looked up among them and opens nothing."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

router = APIRouter(include_in_schema=False)

_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "png": "image/png",
    "webmanifest": "application/manifest+json",
}


@dataclass(frozen=True, kw_only=True)
class PageFile:
    """A file of the page. tag: of its content, by which browsers know it."""

    content: bytes
    media_type: str
    tag: str


@cache
def page_files() -> dict[str, PageFile]:
    """Name -> file."""
    folder: Any = files("sanakit.server") / "page"
    if not folder.is_dir():
        return {}
    found = {}
    for file in folder.iterdir():
        kind = _TYPES.get(file.name.rpartition(".")[2])
        if kind is not None:
            content = file.read_bytes()
            tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            found[file.name] = PageFile(content=content, media_type=kind, tag=tag)
    return found


@router.get("/")
def index(request: Request) -> Response:
    """Return the page."""
    return page_file("index.html", request)


@router.get("/page/{name}")
def page_file(name: str, request: Request) -> Response:
    """Return a file of the page."""
    found = page_files().get(name)
    if found is None:
        raise HTTPException(404, "there is no such page")
    # Browsers ask for it again, and get it only after an update.
    headers = {"ETag": found.tag, "Cache-Control": "no-cache"}
    if found.tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(found.content, media_type=found.media_type, headers=headers)
