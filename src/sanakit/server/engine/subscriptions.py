"""Events of jobs, from the threads that cause them to whoever listens: a thread, or a coroutine of any event loop.

Nobody waits for a listener. What a slow one has not taken yet stays in its queue, where a newer step replaces the one
before it, so a queue holds a few events for each picture of its job and no more.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

from sanakit.server.engine.jobs import EventKind, JobEvent, ending

_REPLACED: tuple[EventKind, ...] = ("step", "queued")
"""Kinds of which only the newest matters."""


class Subscription:
    """The events of one job, for one listener: iterate in a thread, or with `async for`. `close` it in the end.

    previews: whether its steps carry pictures.
    """

    def __init__(self, job_id: str, *, previews: bool, forget: Callable[[Subscription], None]) -> None:
        self.job_id = job_id
        self.previews = previews
        self._forget = forget
        self._events: deque[JobEvent] = deque()
        self._changed = threading.Condition()
        self._wake: Callable[[], object] | None = None  # of the coroutine that waits
        self._closed = False

    def put(self, event: JobEvent) -> None:
        """Hand over an event, from any thread; what comes after the last one, or after `close`, is dropped."""
        if not self.previews and event.preview is not None:
            event = replace(event, preview=None)
        with self._changed:
            if self._closed or (self._events and self._events[-1].is_last):
                return
            if self._events and event.kind in _REPLACED and self._events[-1].kind == event.kind:
                self._events.pop()
            self._events.append(event)
            self._notify()

    def begin(self, snapshot: JobEvent) -> None:
        """Put the first event before whatever has happened since the subscription was made."""
        with self._changed:
            self._events.appendleft(snapshot)
            if snapshot.job.is_finished and not self._events[-1].is_last:
                self._events.append(ending(snapshot.job))
            self._notify()

    def next(self, timeout: float | None = None) -> JobEvent | None:
        """Return the next event; None if none came within `timeout` seconds, or none will come."""
        with self._changed:
            self._changed.wait_for(lambda: self._events or self._closed, timeout)
            return self._take()

    def close(self) -> None:
        """End the iteration, wherever it waits. May be called twice, and from any thread."""
        self._forget(self)
        with self._changed:
            self._closed = True
            self._notify()

    @property
    def ended(self) -> bool:
        """Whether no event will come any more."""
        with self._changed:
            return self._closed and not self._events

    def __iter__(self) -> Iterator[JobEvent]:
        while (event := self.next()) is not None:
            yield event

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> JobEvent:
        loop, woken = asyncio.get_running_loop(), asyncio.Event()
        while True:
            with self._changed:
                event = self._take()
                if event is not None:
                    return event
                if self._closed:
                    raise StopAsyncIteration
                woken.clear()
                self._wake = lambda: loop.call_soon_threadsafe(woken.set)
            await woken.wait()

    def _take(self) -> JobEvent | None:
        """Return the next event; the last one closes the subscription. Called with the lock held."""
        if not self._events:
            return None
        event = self._events.popleft()
        if event.is_last:
            self._closed = True
            self._events.clear()
        return event

    def _notify(self) -> None:
        """Wake the listener. Called with the lock held."""
        self._changed.notify_all()
        if self._wake is not None:
            wake, self._wake = self._wake, None
            with suppress(RuntimeError):  # its event loop has gone, and it with it
                wake()


class Hub:
    """The subscriptions of all jobs. Its lock is taken last: nothing is called while it is held."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_job: dict[str, list[Subscription]] = {}

    def subscribe(self, job_id: str, *, previews: bool) -> Subscription:
        """Return a new subscription, which hears everything from now on."""
        made = Subscription(job_id, previews=previews, forget=self._remove)
        with self._lock:
            self._by_job.setdefault(job_id, []).append(made)
        return made

    def is_watched(self, job_id: str, *, previews: bool = False) -> bool:
        """Return whether anybody listens to a job, or watches its previews."""
        with self._lock:
            return any(each.previews or not previews for each in self._by_job.get(job_id, ()))

    def publish(self, event: JobEvent) -> None:
        """Hand an event to those who listen to its job."""
        with self._lock:
            listeners = list(self._by_job.get(event.job.id, ()))
        for each in listeners:
            each.put(event)

    def close(self) -> None:
        """End all subscriptions."""
        with self._lock:
            everyone = [each for listeners in self._by_job.values() for each in listeners]
        for each in everyone:
            each.close()

    def _remove(self, subscription: Subscription) -> None:
        with self._lock:
            rest = [each for each in self._by_job.get(subscription.job_id, ()) if each is not subscription]
            if rest:
                self._by_job[subscription.job_id] = rest
            else:
                self._by_job.pop(subscription.job_id, None)
