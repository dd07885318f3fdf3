"""Events reach threads and coroutines, in order, once, and no slow listener keeps more than a few."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import Any

from sanakit.server.engine.jobs import EventKind, Job, JobEvent, ending
from sanakit.server.engine.subscriptions import Hub
from tests.server.engines import SECONDS, ask

JOB = Job(id="a" * 32, model="toybox", request=ask(), created=0.0, total=100)


def event(kind: EventKind = "step", step: int = 0, preview: bytes | None = None) -> JobEvent:
    return JobEvent(kind=kind, job=replace(JOB, step=step), preview=preview)


def done() -> JobEvent:
    return ending(replace(JOB, state="done"))


def test_a_snapshot_is_first_and_the_end_is_last() -> None:
    hub = Hub()
    listener = hub.subscribe(JOB.id, previews=False)
    hub.publish(event("started"))
    listener.begin(event("snapshot"))
    hub.publish(done())
    hub.publish(event())
    assert [each.kind for each in listener] == ["snapshot", "started", "done"]
    assert listener.ended and listener.next(0) is None


def test_a_finished_job_ends_at_once() -> None:
    listener = Hub().subscribe(JOB.id, previews=False)
    failed = replace(JOB, state="failed", error="why")
    listener.begin(JobEvent(kind="snapshot", job=failed))
    assert [(each.kind, each.message) for each in listener] == [("snapshot", None), ("failed", "why")]


def test_a_slow_listener_keeps_the_newest_step() -> None:
    hub = Hub()
    listener = hub.subscribe(JOB.id, previews=True)
    for step in range(1000):
        hub.publish(event(step=step, preview=b"jpeg"))
    hub.publish(event("picture"))
    hub.publish(event(step=1000))
    hub.publish(done())
    found = list(listener)
    assert [(each.kind, each.job.step) for each in found[:3]] == [
        ("step", 999),
        ("picture", 0),
        ("step", 1000),
    ]
    assert found[0].preview == b"jpeg"


def test_previews_are_for_those_who_asked_and_jobs_for_their_own_listeners() -> None:
    hub = Hub()
    plain, watching = hub.subscribe(JOB.id, previews=False), hub.subscribe(JOB.id, previews=True)
    other = hub.subscribe("b" * 32, previews=True)
    assert hub.is_watched(JOB.id, previews=True)
    hub.publish(event(preview=b"jpeg"))
    assert [each.next(0) and each.next(0) for each in (plain, watching, other)] == [None] * 3
    hub.publish(event(preview=b"jpeg"))
    seen: list[Any] = [each.next(0) for each in (plain, watching)]
    assert [each.preview for each in seen] == [None, b"jpeg"]
    watching.close()
    assert hub.is_watched(JOB.id) and not hub.is_watched(JOB.id, previews=True)
    plain.close()
    plain.close()
    assert not hub.is_watched(JOB.id)


def test_coroutines_hear_what_threads_do() -> None:
    hub = Hub()

    async def listen() -> list[str]:
        listener = hub.subscribe(JOB.id, previews=False)
        listener.begin(event("snapshot"))
        speaker = threading.Thread(target=lambda: [hub.publish(each) for each in (event("started"), done())])
        found = [(await asyncio.wait_for(anext(listener), SECONDS)).kind]
        speaker.start()
        async for each in listener:
            found.append(each.kind)
        speaker.join()
        return found

    assert asyncio.run(listen()) == ["snapshot", "started", "done"]


def test_closing_ends_whoever_waits() -> None:
    hub = Hub()
    listener, heard = hub.subscribe(JOB.id, previews=False), list[JobEvent]()
    thread = threading.Thread(target=lambda: heard.extend(listener))
    thread.start()
    hub.close()
    thread.join(SECONDS)
    assert not thread.is_alive() and heard == []

    async def waits() -> list[JobEvent]:
        silent = hub.subscribe(JOB.id, previews=False)
        asyncio.get_running_loop().call_later(0.01, silent.close)
        return [each async for each in silent]

    assert asyncio.run(waits()) == []


def test_a_wait_that_was_given_up_loses_nothing() -> None:
    """As a server does that sends a heartbeat now and then."""
    hub = Hub()

    async def listen() -> list[str]:
        listener = hub.subscribe(JOB.id, previews=False)
        try:
            await asyncio.wait_for(anext(listener), 0.01)
        except TimeoutError:
            hub.publish(done())
        return [each.kind async for each in listener]

    assert asyncio.run(listen()) == ["done"]
