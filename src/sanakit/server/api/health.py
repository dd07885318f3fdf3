"""Whether a server lives, and whether it draws: for whoever starts it, watches it, or sends clients to it."""

from __future__ import annotations

from fastapi import APIRouter, Response
from pydantic import BaseModel

from sanakit import __version__
from sanakit.server.metrics import MEDIA_TYPE
from sanakit.server.service import Overseer, ServiceOf

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """A server that lives. version: of sanakit."""

    status: str = "ok"
    version: str = __version__


class Readiness(BaseModel):
    """Whether new jobs are taken, and why not."""

    ready: bool
    reason: str | None = None


@router.get("/health")
def health() -> Health:
    """Answer as long as the process does."""
    return Health()


@router.get("/ready", responses={503: {"model": Readiness}})
def ready(service: ServiceOf, response: Response) -> Readiness:
    """Tell whether a job that came now would be taken: the server isn't stopping, and its queue has room."""
    full = service.engine.stats.queued >= service.engine.config.queue
    reason = "the server stops" if service.stopping.is_set() else "the queue is full" if full else None
    if reason is not None:
        response.status_code = 503
    return Readiness(ready=reason is None, reason=reason)


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def metrics(caller: Overseer) -> Response:
    """Return counters and gauges as Prometheus reads them."""
    return Response(caller.service.metrics.text(caller.service.engine.stats), media_type=MEDIA_TYPE)
