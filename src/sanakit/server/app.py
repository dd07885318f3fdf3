"""The application: three APIs over one engine, the page, and what every request passes through."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from starlette.middleware import Middleware

from sanakit import __version__
from sanakit.server.api import a1111, health, native, openai_images, pages, pictures
from sanakit.server.api.event_bodies import EVENTS, describe_stream
from sanakit.server.api.faults import LastResort, install_faults
from sanakit.server.api.openai_bodies import Call, events_of
from sanakit.server.engine.engine import Engine
from sanakit.server.keys import KeyStore
from sanakit.server.logs import RequestLog
from sanakit.server.security import BodyLimit, OriginGuard, SecurityHeaders
from sanakit.server.service import Service
from sanakit.server.settings import Settings
from sanakit.server.signed_tokens import SignedTokens
from sanakit.server.traces import JobSpans

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

_CALLS: dict[str, Call] = {"generate_images": "generation", "edit_images": "edit"}
_ABOUT = (
    "Pictures from text with models of the SANA family: our own API below /api, that of OpenAI's images below /v1, and "
    "that of the AUTOMATIC1111 web UI below /sdapi/v1."
)


class Application(FastAPI):
    """FastAPI, whose OpenAPI document also says what the events of each stream hold."""

    def openapi(self) -> dict[str, Any]:
        """Return the document, which is made once."""
        if self.openapi_schema is not None:
            return self.openapi_schema
        document = super().openapi()
        describe_stream(document, "watch_job", EVENTS, "What happens to a job, by its kinds.")
        for operation, call in _CALLS.items():
            describe_stream(
                document, operation, events_of(call), "With `stream`: pictures, partial and finished."
            )
        return document


def create_app(engine: Engine, settings: Settings, traces: TracerProvider | None = None) -> FastAPI:
    """Return the application over an engine, which the caller starts and stops. traces: where spans go, if anywhere."""
    spans = None if traces is None else JobSpans(traces, engine)
    data = engine.config.data
    service = Service(
        engine=engine, settings=settings, keys=KeyStore(data), tokens=SignedTokens(data), spans=spans
    )
    telemetry: TelemetryConfig = {
        "auto_configure": False,
        "metrics": False,
        "logs": False,
        "tracing": traces is not None,
    }
    if traces is not None:
        telemetry["tracer_provider"] = traces
    app = Application(
        telemetry=telemetry,
        title="sanakit", version=__version__, description=_ABOUT,
        redirect_slashes=False, generate_unique_id_function=lambda route: route.name,
        openapi_url="/api/openapi.json", docs_url=None, redoc_url=None,  # those pages load scripts of other hosts
        middleware=[  # the first is outermost
            Middleware(RequestLog, watch=service.metrics.count),
            Middleware(SecurityHeaders),
            Middleware(OriginGuard, settings=settings),
            Middleware(LastResort),
            Middleware(BodyLimit, most=settings.body),
        ],
    )  # fmt: skip
    app.state.service = service
    install_faults(app)
    for routes in (native, pictures, openai_images, a1111, health, pages):
        app.include_router(routes.router)
    return app
