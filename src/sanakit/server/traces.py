"""OpenTelemetry traces, by the extra `traces`: a span for each request, by FastAPI, and below it one for each job.

A job outlives its request, so its span is written when it has ended: as long as it took, with its wait and its drawing
inside. Where traces go is said as everywhere, by OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME and their kin.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import anyio.from_thread
from opentelemetry import context, trace

from sanakit import __version__
from sanakit.server.engine.engine import Engine
from sanakit.server.engine.jobs import Job

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Tracer, TracerProvider


def export_traces() -> TracerProvider:
    """Return a provider that sends spans to a collector."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider as Provider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = Resource({SERVICE_NAME: "sanakit"}).merge(OTELResourceDetector().detect())
    provider = Provider(resource=named)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


class JobSpans:
    """Writes the spans of jobs when they end."""

    def __init__(self, provider: TracerProvider, engine: Engine) -> None:
        self._tracer: Tracer = provider.get_tracer("sanakit", __version__)
        self._engine = engine
        self._tasks: set[asyncio.Task[None]] = set()

    def follow(self, jobs: Sequence[Job]) -> None:
        """Write a span below the present one when each of the jobs ends. Called in a thread of a route."""
        anyio.from_thread.run_sync(self._begin, jobs, context.get_current())

    def _begin(self, jobs: Sequence[Job], above: Context) -> None:
        for job in jobs:
            task = asyncio.get_running_loop().create_task(self._write(job.id, above))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _write(self, job_id: str, above: Context) -> None:
        subscription = await asyncio.to_thread(self._engine.subscribe, job_id)
        try:
            last = [event.job async for event in subscription][-1]
        finally:
            subscription.close()
        if last.finished is None:  # the server ends before the job does
            return
        facts = {"sanakit.job": last.id, "sanakit.model": last.model, "sanakit.state": last.state,
                 "sanakit.steps": last.total, "sanakit.count": last.request.count}  # fmt: skip
        span = self._tracer.start_span("job", above, attributes=facts, start_time=_nanoseconds(last.created))
        inside = trace.set_span_in_context(span, above)
        begun = last.started or last.finished
        for name, start, end in (("wait", last.created, begun), ("draw", begun, last.finished)):
            part = self._tracer.start_span(name, inside, start_time=_nanoseconds(start))
            part.end(_nanoseconds(end))
        if last.error is not None:
            span.set_status(trace.Status(trace.StatusCode.ERROR, last.error))
        span.end(_nanoseconds(last.finished))


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
