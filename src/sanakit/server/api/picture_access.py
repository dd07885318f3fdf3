"""Who may fetch a picture: whoever sends a key that sees it, or, where none can be sent, a signed token.

The page shows pictures by <img>, which sends no header: `open_session` gives its browser a cookie that names the key
and is sent to pictures alone, by pages of this server alone, and that no script reads. A link, as OpenAI's API returns
it, names one picture. Both end by themselves, and a cookie also with its key.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends, Path, Query, Request, Response

from sanakit.server.engine.errors import PictureNotFoundError
from sanakit.server.refusals import NoKeyError
from sanakit.server.service import Bearer, Caller, Service, ServiceOf, find_caller

COOKIE_SECONDS = 24 * 3600
"""The page asks for another one every hour; without a page the cookie goes with the browser."""

LINK_SECONDS = 3600
"""As long as links of OpenAI's images live."""

_COOKIE = "sanakit-"
"""Begins the names of cookies; the id of the key follows, since cookies of all ports of a machine lie together."""

_PLACE = "/api/images"

PictureId = Annotated[str, Path(max_length=64, description="The id of a picture.")]
_Token = Annotated[
    str | None,
    Query(max_length=256, description="That of a link; whoever has it needs no key for this picture."),
]


def open_session(caller: Caller, request: Request, response: Response) -> None:
    """Let a browser fetch what a key sees, by a cookie. Without keys there is none."""
    if caller.key is None:
        return
    response.set_cookie(
        f"{_COOKIE}{caller.key.id}",
        caller.service.tokens.make("cookie", caller.key.id, COOKIE_SECONDS),
        path=_PLACE,
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )


def link_to(picture_id: str, caller: Caller, base: str, query: str = "") -> str:
    """Return an address from which whoever has it can fetch a picture, for an hour. base: that of the server."""
    parts = [query] if query else []
    if caller.key is not None:
        parts.append(f"token={caller.service.tokens.make('link', picture_id, LINK_SECONDS)}")
    return f"{base.rstrip('/')}{_PLACE}/{picture_id}{'?' if parts else ''}{'&'.join(parts)}"


def _visible_picture(
    picture_id: PictureId, request: Request, service: ServiceOf, bearer: Bearer, token: _Token = None
) -> bytes:
    """Return the PNG of a picture. Raises NoKeyError, or PictureNotFoundError also for one of another key."""
    try:
        callers = [find_caller(request, service, bearer)]
    except NoKeyError:
        if token is not None and service.tokens.read("link", token) == picture_id:
            return service.engine.picture(picture_id)
        callers = list(_of_cookies(request, service))
        if not callers:
            raise
    for caller in callers:
        try:
            return service.engine.picture(picture_id, caller.sees)
        except PictureNotFoundError:
            continue
    raise PictureNotFoundError("there is no picture with this id")


VisiblePicture = Annotated[bytes, Depends(_visible_picture)]
"""The PNG that is asked for, if the client may see it."""


def _of_cookies(request: Request, service: Service) -> Iterator[Caller]:
    """Whoever the cookies of a request name; keys that were removed are nobody's any more."""
    for name, value in request.cookies.items():
        key_id = service.tokens.read("cookie", value) if name.startswith(_COOKIE) else None
        key = None if key_id is None else service.keys.by_id(key_id)
        if key is not None:
            yield Caller(service=service, key=key)
