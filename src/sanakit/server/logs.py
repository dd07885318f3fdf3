"""Logs: one line for each request and each fault, as text for people or as JSON for programs, with an id per request.

No prompt, no key and no picture is logged. A client may name its request by `X-Request-Id`, and finds it in the log.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
from collections.abc import Callable
from contextvars import ContextVar

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sanakit.base.echo import printable, printable_lines
from sanakit.server.settings import LogForm

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_id: ContextVar[str] = ContextVar("request_id", default="-")
_FIELDS = ("method", "path", "status", "seconds", "key", "job")
_LOG = logging.getLogger("sanakit.server.access")

Watch = Callable[[Scope, int, float], object]
"""Told of every response: its scope, its status, and the seconds it took."""


def request_id() -> str:
    """Return the id of the request that is being answered; `-` outside of one."""
    return _id.get()


class JsonLines(logging.Formatter):
    """A record as one JSON object: time, level, message, request, and the facts that came with it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        row: dict[str, object] = {
            "time": round(record.created, 3), "level": record.levelname.lower(), "logger": record.name,
            "message": printable(record.getMessage()), "request": request_id(),
        }  # fmt: skip
        row |= {name: getattr(record, name) for name in _FIELDS if hasattr(record, name)}
        if record.exc_info:
            row["traceback"] = self.formatException(record.exc_info)
        return json.dumps(row)


class TextLines(logging.Formatter):
    """A record as a line for people; a traceback follows in lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        facts = [str(getattr(record, name)) for name in _FIELDS if hasattr(record, name)]
        line = printable(" ".join([clock, record.levelname.lower(), record.getMessage(), *facts]))
        trace = f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
        return printable_lines(f"{line}{trace}")


class Teller(logging.Handler):
    """Tells lines to whoever prints."""

    def __init__(self, tell: Callable[[str], object]) -> None:
        super().__init__()
        self.tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        """Tell a line."""
        try:
            self.tell(self.format(record))
        except Exception:
            self.handleError(record)


def set_up_logs(form: LogForm, tell: Callable[[str], object]) -> None:
    """Tell the logs of the server and of uvicorn, a line at a time."""
    handler: logging.Handler = logging.NullHandler()
    if form != "off":
        handler = Teller(tell)
        handler.setFormatter(JsonLines() if form == "json" else TextLines())
    for name in ("sanakit.server", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # its greetings are said by the command
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of forms that can't be parsed


class RequestLog:
    """Gives every request an id, and logs how it was answered."""

    def __init__(self, app: ASGIApp, watch: Watch) -> None:
        self.app, self.watch = app, watch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        name = given if _ID.fullmatch(given) else secrets.token_hex(8)
        token, started, status = _id.set(name), time.perf_counter(), 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = name
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        finally:
            self._tell(scope, status, time.perf_counter() - started)
            _id.reset(token)

    def _tell(self, scope: Scope, status: int, seconds: float) -> None:
        self.watch(scope, status, seconds)
        key = scope.get("state", {}).get("key")
        facts = {"method": scope["method"], "path": printable(scope["path"], 200), "status": status,
                 "seconds": round(seconds, 3), **({"key": key} if key else {})}  # fmt: skip
        _LOG.info("request", extra=facts)
