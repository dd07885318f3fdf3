"""Errors as responses: one table of statuses, and the body that each of the three APIs gives them.

A client gets the sentence of an error that it can put right. What nobody foresaw is logged with its traceback and
answered with its request id alone.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sanakit.base.echo import printable
from sanakit.base.errors import ModelNotFoundError, PictureError, RequestError, SanakitError, ShortageError
from sanakit.base.memory import is_shortage
from sanakit.server.engine.errors import JobNotFoundError, PictureNotFoundError, QueueFullError
from sanakit.server.logs import request_id
from sanakit.server.refusals import (
    JobEndedError,
    JobFailedError,
    NoKeyError,
    OriginError,
    RateError,
    ScopeError,
)

_LOG = logging.getLogger("sanakit.server")

_STATUSES: dict[type[SanakitError], int] = {
    NoKeyError: 401,
    ScopeError: 403,
    OriginError: 403,
    JobNotFoundError: 404,
    PictureNotFoundError: 404,
    ModelNotFoundError: 404,
    JobEndedError: 409,
    RequestError: 422,
    PictureError: 422,
    ShortageError: 422,
    QueueFullError: 429,
    RateError: 429,
    JobFailedError: 500,
}
"""What a client can put right or wait for, or has to know. Others, such as a disk that is full, are the server's."""

_KINDS = {
    400: "BadRequest",
    404: "NotFound",
    405: "MethodNotAllowed",
    413: "TooLarge",
    415: "UnsupportedMediaType",
}


@dataclass(frozen=True, kw_only=True)
class Fault:
    """An error as clients see it.

    message: a sentence with its period. kind: the name of its class. field: of the request, such as `request.steps`;
    None if it is about no single one. retry_after: seconds after which another try makes sense.
    """

    status: int
    message: str
    kind: str
    field: str | None = None
    retry_after: float | None = None


def fault_of(error: Exception) -> Fault:
    """Return what clients are told of an error."""
    status = next((status for kind, status in _STATUSES.items() if isinstance(error, kind)), None)
    if status is not None:
        return Fault(
            status=status, message=_sentence(printable(error)), kind=type(error).__name__,
            retry_after=getattr(error, "retry_after", None),
        )  # fmt: skip
    if isinstance(error, RequestValidationError):
        return _invalid(error)
    if isinstance(error, HTTPException):
        kind = _KINDS.get(error.status_code, "HTTPError")
        return Fault(status=error.status_code, message=_sentence(printable(error.detail)), kind=kind)
    if is_shortage(error):
        return Fault(
            status=503, message="not enough memory for this now: try a smaller size.", kind="ShortageError"
        )
    return Fault(
        status=500, message=f"a fault of the server; its log says more under {request_id()}.", kind="ServerError"
    )  # fmt: skip


def _invalid(error: RequestValidationError) -> Fault:
    """Return the first field that is wrong. Nothing of the request is repeated but what our own checks quote."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:] if isinstance(part, str | int))
    said = first["msg"].removeprefix("Value error, ")
    message = (
        said if first["type"] == "value_error" or not where else f"{where}: {said[:1].lower()}{said[1:]}"
    )
    return Fault(
        status=422,
        message=_sentence(printable(message)),
        kind="RequestError",
        field=printable(where, 120) or None,
    )


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def native_body(fault: Fault) -> dict[str, Any]:
    """Return a body as our own API tells a fault."""
    return {"error": {"message": fault.message, "type": fault.kind, "field": fault.field}}


def openai_body(fault: Fault) -> dict[str, Any]:
    """Return a body as https://platform.openai.com/docs/guides/error-codes shows it."""
    kind = "server_error" if fault.status >= 500 else "invalid_request_error"
    code = _OPENAI_CODES.get(fault.kind)
    return {"error": {"message": fault.message, "type": kind, "param": fault.field, "code": code}}


def a1111_body(fault: Fault) -> dict[str, Any]:
    """Return a body as `modules/api/api.py` of the AUTOMATIC1111 web UI tells it."""
    return {"error": fault.kind, "detail": fault.message, "body": "", "errors": fault.message}


_OPENAI_CODES = {
    "NoKeyError": "invalid_api_key", "ModelNotFoundError": "model_not_found", "RateError": "rate_limit_exceeded",
    "QueueFullError": "rate_limit_exceeded",
}  # fmt: skip
_BODIES: dict[str, Callable[[Fault], dict[str, Any]]] = {"/v1/": openai_body, "/sdapi/": a1111_body}
"""Beginning of a path -> the body of its faults; all others get `native_body`."""


def answer(request: Request, error: Exception) -> JSONResponse:
    """Return the response to a request that failed."""
    fault = fault_of(error)
    if fault.status >= 500:
        _LOG.error("a request failed", exc_info=error)
    prefix = next((prefix for prefix in _BODIES if request.url.path.startswith(prefix)), "")
    status = 400 if prefix == "/v1/" and fault.status == 422 else fault.status  # their word for bad values
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    if fault.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(fault.retry_after)))
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(_BODIES.get(prefix, native_body)(fault), status_code=status, headers=headers)


def install_faults(app: FastAPI) -> None:
    """Answer the errors of an app; what nobody foresaw is left to `LastResort`."""
    for kind in (SanakitError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, answer)


class LastResort:
    """Answers what nobody foresaw, within the parts that log a request and put headers onto its response."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        began = False

        async def send_on(message: Message) -> None:
            nonlocal began
            began = True
            await send(message)

        try:
            await self.app(scope, receive, send_on)
        except Exception as error:
            if began or scope["type"] != "http":
                raise
            await answer(Request(scope), error)(scope, receive, send)
