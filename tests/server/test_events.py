"""Streams of events: told to the end, kept alive, and closed wherever their client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from sanakit.pipeline.request import ImageRequest
from sanakit.server.api import events
from sanakit.server.api.events import EventStream, finish, listen
from sanakit.server.engine.jobs import Job, JobEvent
from sanakit.server.engine.subscriptions import Hub, Subscription

JOB = Job(id="1", model="m", request=ImageRequest(prompt="a"), created=0.0, total=2)


def subscribed(*kinds: Any) -> tuple[Hub, Subscription]:
    """A subscription that has had these events."""
    hub = Hub()
    made = hub.subscribe("1", previews=False)
    for kind in kinds:
        hub.publish(JobEvent(kind=kind, job=JOB))
    return hub, made


async def lines(subscription: Subscription) -> AsyncGenerator[str, None]:
    async for event in listen(subscription):
        yield "pulse" if event is None else event.kind


async def streamed(stream: EventStream, *, leaves: float | None) -> list[bytes]:
    """What a client gets that leaves after some seconds, or never."""
    sent: list[bytes] = []

    async def receive() -> dict[str, str]:
        await asyncio.sleep(1e6 if leaves is None else leaves)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message.get("body", b""))

    await stream({"type": "http", "asgi": {"spec_version": "2.3"}}, receive, send)
    return [body for body in sent if body]


@pytest.mark.parametrize("leaves", [0.0, 0.2])
@pytest.mark.parametrize("kinds", [(), ("snapshot", "step")])
def test_a_client_that_leaves_is_noticed_wherever_the_stream_waits(leaves: float, kinds: tuple[str, ...]):
    hub, subscription = subscribed(*kinds)
    left: list[bool] = []
    stream = EventStream(subscription, lines(subscription), lambda: left.append(True))
    asyncio.run(streamed(stream, leaves=leaves))
    assert left == [True]
    assert subscription.ended or not hub.is_watched("1")


def test_a_stream_that_was_told_to_its_end_was_not_left():
    hub, subscription = subscribed("snapshot", "step", "done")
    left: list[bool] = []
    stream = EventStream(subscription, lines(subscription), lambda: left.append(True))
    assert asyncio.run(streamed(stream, leaves=None)) == [b"snapshot", b"step", b"done"]
    assert left == [] and not hub.is_watched("1")


def test_an_engine_that_stops_ends_its_streams():
    hub, subscription = subscribed("snapshot")
    left: list[bool] = []

    async def run() -> list[bytes]:
        asyncio.get_running_loop().call_later(0.1, hub.close)
        return await streamed(
            EventStream(subscription, lines(subscription), lambda: left.append(True)), leaves=None
        )

    assert asyncio.run(run()) == [b"snapshot"]
    assert left == []


def test_a_silent_stream_is_kept_alive(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(events, "PULSE_SECONDS", 0.05)
    hub, subscription = subscribed("snapshot")

    async def run() -> list[bytes]:
        asyncio.get_running_loop().call_later(0.18, hub.publish, JobEvent(kind="done", job=JOB))
        return await streamed(EventStream(subscription, lines(subscription)), leaves=None)

    found = asyncio.run(run())
    assert found[0] == b"snapshot" and found[-1] == b"done"
    assert set(found[1:-1]) == {b"pulse"}


class _Engine:
    """The methods that `finish` calls."""

    def __init__(self, subscription: Subscription) -> None:
        self.subscription, self.cancelled = subscription, list[str]()

    def subscribe(self, job_id: str) -> Subscription:
        return self.subscription

    def cancel(self, job_id: str) -> None:
        self.cancelled.append(job_id)

    def get(self, job_id: str) -> Job:
        return JOB


class _Request:
    """A client that leaves at once, or never."""

    def __init__(self, leaves: bool) -> None:
        self.leaves = leaves

    async def receive(self) -> dict[str, str]:
        if not self.leaves:
            await asyncio.sleep(1e6)
        return {"type": "http.disconnect"}


@pytest.mark.parametrize(("kinds", "leaves", "cancelled"), [(("done",), False, []), ((), True, ["1"])])
def test_waiting_ends_with_the_job_or_with_the_client(
    kinds: tuple[str, ...], leaves: bool, cancelled: list[str]
):
    hub, subscription = subscribed(*kinds)
    engine: Any = _Engine(subscription)
    request: Any = _Request(leaves)
    assert asyncio.run(finish(engine, JOB, request)) == JOB
    assert engine.cancelled == cancelled
    assert not hub.is_watched("1")
