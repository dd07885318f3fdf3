"""Server-sent events: a job as it is drawn, until it ends or nobody listens.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import anyio
from fastapi.responses import StreamingResponse
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from sanakit.server.engine import Engine
from sanakit.server.jobs import Job, JobEvent, JobPicture
from sanakit.server.refusals import JobEndedError, JobFailedError
from sanakit.server.subscriptions import Subscription

PULSE_SECONDS = 15.0
"""A comment is sent after such a silence, by which proxies know that the connection lives."""

PULSE = ": still here\n\n"


class EventStream(StreamingResponse):
    """A response of events. Its generator is closed when the client leaves, wherever it waits then."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[str, None]) -> None:
        super().__init__(events, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await self._events.aclose()


def format_event(kind: str, data: str) -> str:
    """One event; data is JSON, which has no line breaks."""
    return f"event: {kind}\ndata: {data}\n\n"


async def listen(
    engine: Engine, job: Job, *, previews: bool = False, cancel: bool = False
) -> AsyncGenerator[JobEvent | None, None]:
    """Yield the events of a job, and None after each silence of `PULSE_SECONDS`.

    cancel: a job whose listener leaves before its end is cancelled.
    """
    subscription = await asyncio.to_thread(engine.subscribe, job.id, previews=previews)
    ended = False
    try:
        async with aclosing(_with_pulse(subscription)) as events:
            async for event in events:
                ended = event is not None and event.is_last
                yield event
        ended = True
    finally:
        subscription.close()
        if cancel and not ended:
            with anyio.CancelScope(shield=True):
                await asyncio.to_thread(engine.cancel, job.id)


async def _with_pulse(subscription: Subscription) -> AsyncGenerator[JobEvent | None, None]:
    waiting: asyncio.Future[JobEvent] | None = None
    try:
        while True:
            waiting = waiting or asyncio.ensure_future(anext(subscription))
            done, _ = await asyncio.wait({waiting}, timeout=PULSE_SECONDS)
            if not done:
                yield None
                continue
            taken, waiting = waiting, None
            try:
                yield taken.result()
            except StopAsyncIteration:
                return
    finally:
        if waiting is not None:
            waiting.cancel()


async def finish(engine: Engine, job: Job, request: Request) -> Job:
    """Wait for a job, and return it as it ended. If the client leaves, the job is cancelled."""

    async def watch() -> None:
        async with aclosing(listen(engine, job, cancel=True)) as events:
            async for _ in events:
                pass

    watching, leaving = asyncio.ensure_future(watch()), asyncio.ensure_future(_leave(request))
    try:
        await asyncio.wait({watching, leaving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaving.cancel()
        watching.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait({watching})
    return await asyncio.to_thread(engine.get, job.id)


def pictures_of(job: Job) -> tuple[JobPicture, ...]:
    """Return the pictures of a job that a client waited for. Raises JobFailedError, or JobEndedError without any."""
    if job.state == "failed":
        raise JobFailedError(job.error or "the job failed")
    if job.state == "done" or (job.state == "cancelled" and job.pictures):
        return job.pictures
    ended = (
        "the job was cancelled"
        if job.state == "cancelled"
        else "the server stops; it draws the job when it starts"
    )
    raise JobEndedError(f"{ended}: its id is {job.id}")


async def _leave(request: Request) -> None:
    """Return when the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
