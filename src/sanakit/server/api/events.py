"""Server-sent events: a job as it is drawn, until it ends or nobody listens.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

import anyio
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from sanakit.server.engine.engine import Engine
from sanakit.server.engine.jobs import Job, JobEvent, JobPicture
from sanakit.server.engine.subscriptions import Subscription
from sanakit.server.refusals import JobEndedError, JobFailedError

PULSE_SECONDS = 15.0
"""A comment is sent after such a silence, by which proxies know that the connection lives."""

PULSE = ": still here\n\n"


class EventStream(StreamingResponse):
    """A response of events, which closes its subscription in any case.

    lines: what is sent. left: called, in a thread, if the client leaves before the last line.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        subscription: Subscription,
        lines: AsyncGenerator[str, None],
        left: Callable[[], object] | None = None,
    ) -> None:
        super().__init__(lines, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._subscription, self._lines, self._left = subscription, lines, left
        self._told_all = False

    async def stream_response(self, send: Send) -> None:
        """Send every line."""
        await super().stream_response(send)
        self._told_all = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._subscription.close()
            with anyio.CancelScope(shield=True):  # a client that leaves cancels this task
                await self._lines.aclose()
                if self._left is not None and not self._told_all:
                    await run_in_threadpool(self._left)


def format_event(kind: str, data: str) -> str:
    """Return an event as text; data is JSON, which has no line breaks."""
    return f"event: {kind}\ndata: {data}\n\n"


async def listen(subscription: Subscription) -> AsyncGenerator[JobEvent | None, None]:
    """Yield the events of a job, and None after each silence of `PULSE_SECONDS`."""
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
                event = taken.result()
            except StopAsyncIteration:
                return
            yield event
    finally:
        if waiting is not None:
            waiting.cancel()


async def finish(engine: Engine, job: Job, request: Request) -> Job:
    """Wait for a job, and return it as it ended. If the client leaves, the job is cancelled."""
    subscription = await run_in_threadpool(engine.subscribe, job.id)
    watching = asyncio.ensure_future(_end(subscription))
    leaving = asyncio.ensure_future(_leave(request))
    try:
        await asyncio.wait({watching, leaving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        subscription.close()
        left = not watching.done()
        watching.cancel()
        leaving.cancel()
        if left:
            with anyio.CancelScope(shield=True):
                await run_in_threadpool(engine.cancel, job.id)
    return await run_in_threadpool(engine.get, job.id)


async def _end(subscription: Subscription) -> None:
    """Return when the job has ended."""
    async for _ in subscription:
        pass


async def _leave(request: Request) -> None:
    """Return when the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def pictures_of(job: Job) -> tuple[JobPicture, ...]:
    """Return the pictures of a job that a client waited for. Raises JobFailedError, or JobEndedError without any."""
    if job.state == "failed":
        raise JobFailedError(job.error or "the job failed")
    if job.state == "done" or (job.state == "cancelled" and job.pictures):
        return job.pictures
    if job.state == "cancelled":
        raise JobEndedError(f"the job was cancelled: its id is {job.id}")
    raise JobEndedError(f"the server stops, and draws the job when it starts: its id is {job.id}")
