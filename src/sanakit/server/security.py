"""What every response carries, how much is read, and which requests a browser must not be talked into.

A page of another site can send requests to a server on this machine. It can't read the answers, but it could have
pictures drawn: so what changes something is refused if it comes from another origin. And a name that suddenly means
127.0.0.1 (DNS rebinding) would make another site the same origin: so a server that only this machine reaches answers to
the names of this machine alone.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sanakit.server.api.faults import answer
from sanakit.server.refusals import OriginError
from sanakit.server.settings import LOOPBACK_NAMES, Settings

POLICY = "; ".join(
    (
        "default-src 'self'",
        "img-src 'self' data: blob:",  # pictures that are drawn, dropped or fetched with a key
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
"""Content-Security-Policy: scripts and styles are files of this server, and nothing else is loaded from anywhere."""

_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_SAFE = ("GET", "HEAD", "OPTIONS")


class SecurityHeaders:
    """Puts the headers onto every response."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self.app(scope, receive, send_with_headers if scope["type"] == "http" else send)


class OriginGuard:
    """Refuses names that are not this server's, and changes that another site asks for."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        names = LOOPBACK_NAMES | {settings.host, *settings.hosts}
        self.names = None if settings.is_public else frozenset(name.lower() for name in names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        if refusal is None:
            await self.app(scope, receive, send)
            return
        await answer(Request(scope), OriginError(refusal))(scope, receive, send)

    def _refusal(self, scope: Scope) -> str | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self.names is not None and _name(host) not in self.names:
            return (
                "this server answers to the names of its machine only: start it with --allow-host for others"
            )
        origin = headers.get("origin")
        if scope["method"] in _SAFE or origin is None or _place(origin) == host.lower():
            return None
        return "a page of another site asks for this: only pages of this server may"


class BodyLimit:
    """Refuses bodies of more bytes than `most`: before they are read if they tell their size, else at that byte."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self.app, self.most = app, most
        self.refusal = HTTPException(413, f"the body has more than the {most:,} bytes that are read here")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        told = Headers(scope=scope).get("content-length", "") if scope["type"] == "http" else ""
        if told.isdecimal() and len(told) < 20 and int(told) > self.most:
            await answer(Request(scope), self.refusal)(scope, receive, send)
            return
        read = 0

        async def receive_some() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self.most:
                raise self.refusal
            return message

        await self.app(scope, receive_some, send)


def _place(origin: str) -> str:
    """Return `127.0.0.1:8000` of `http://127.0.0.1:8000`; "" for what is no origin, such as `null`."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _name(host: str) -> str:
    """Return the name in a Host header, without the port; "" for what is none."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""
