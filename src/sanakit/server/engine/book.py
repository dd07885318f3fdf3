"""The unfinished jobs, as every thread sees them. A job changes its state here and nowhere else.

Each change goes into the store first, then into memory, then to subscribers, all under one lock: nobody ever sees a
state that a crash could take back, and events come in the order in which things happened.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from sanakit.base.errors import OutputError
from sanakit.server.engine.config import EngineConfig
from sanakit.server.engine.drawing import Unfinished
from sanakit.server.engine.errors import QueueFullError
from sanakit.server.engine.jobs import EventKind, Job, JobEvent, JobPicture, JobState, ending
from sanakit.server.engine.pace import Pace
from sanakit.server.engine.stats import EngineStats
from sanakit.server.engine.store import Store
from sanakit.server.engine.subscriptions import Hub

_LOG = logging.getLogger("sanakit.server")

Refusal = str
FULL: Refusal = "full"
"""Refusal of a group that has no place. Others may overtake; every other refusal ends with `EngineConfig.patience`."""

_TELLING = 0.5
"""Seconds between two times at which those who wait are told their positions."""


class Book:
    """Unfinished jobs by id, the oldest first. changed: its lock, and what the worker waits for."""

    def __init__(self, config: EngineConfig, store: Store, hub: Hub) -> None:
        self.changed = threading.Condition(threading.RLock())
        self._config, self._store, self._hub = config, store, hub
        self._jobs: dict[str, Unfinished] = {}
        self._pace = Pace()
        self._told = 0.0  # when those who wait were last told their positions
        self._stats = EngineStats(batch=config.batch)

    # What clients ask for, in any thread.

    def submit(self, job: Unfinished, inputs: Iterable[str]) -> None:
        """Accept a job; what it makes stale ends first. Raises QueueFullError."""
        with self.changed:
            if job.job.live is not None:
                self._end_stale(job.job)
            if sum(each.waits for each in self._jobs.values()) >= self._config.queue:
                self.count(refused=1)
                raise QueueFullError(
                    f"{self._config.queue} jobs are waiting, which is as many as may: try again later",
                    self._pace.retry_after(self._seconds(self._jobs.values()), len(self._jobs)),
                )
            self._store.add(job.job, inputs)
            self._jobs[job.job.id] = job
            self.count(submitted=1)
            self.changed.notify_all()

    def cancel(self, job_id: str) -> None:
        """End a job now; if it is drawn, the worker drops it at the next step boundary."""
        with self.changed:
            job = self._jobs.get(job_id)
            if job is not None:
                self.end(job, "cancelled")

    def seen(self, job: Job) -> Job:
        """Return a stored job as it is now."""
        with self.changed:
            found = self._jobs.get(job.id)
            return job if found is None else self._now(found)

    def stats(self) -> EngineStats:
        """Return what was counted, and the numbers of unfinished jobs."""
        with self.changed:
            waiting = sum(each.waits for each in self._jobs.values())
            return replace(self._stats, queued=waiting, running=len(self._jobs) - waiting)

    # What the worker does.

    def restore(self, describe: Callable[[Job], Unfinished], fail: Callable[[Exception], str]) -> None:
        """Take over what the last engine left. fail: why a job can't be drawn any more, as a sentence."""
        for job in self._store.unfinished():
            if job.state == "running" and job.attempts > 1:
                reason = f"the server ended {job.attempts} times while it was drawn"
                self._store.finish(job.id, "failed", time.time(), reason)
                continue
            self._store.put_back(job.id, counts=True)
            try:
                found = describe(replace(job, state="queued", started=None))
            except Exception as error:
                self._store.finish(job.id, "failed", time.time(), fail(error))
                continue
            if not found.todo:  # it ended between its last picture and saying so
                self._store.finish(job.id, "done", time.time())
                continue
            with self.changed:
                self._jobs[job.id] = found

    def next(self, refusal: Callable[[Unfinished], Refusal | None]) -> Unfinished | None:
        """Return the oldest job with a picture that may be begun now.

        refusal: why one may not. Nobody overtakes a job that was refused for longer than the patience of the engine,
        unless its own group is full: so a stream of other jobs can't keep it waiting for ever.
        """
        with self.changed:
            for job in self._jobs.values():
                if not job.todo:
                    continue
                why = refusal(job)
                if why is None:
                    return job
                if why != FULL and time.monotonic() - job.since > self._config.patience:
                    return None
        return None

    def has_todo(self) -> bool:
        """Return whether a picture is not begun."""
        with self.changed:
            return any(job.todo for job in self._jobs.values())

    def begin(self, job: Unfinished) -> int | None:
        """Begin a job, or go on with it: return the number of its next picture; None if it has ended meanwhile."""
        with self.changed:
            if job.ended or not job.todo:
                return None
            if job.waits:
                now = time.time()
                self._store.begin(job.job.id, now)
                job.job = replace(job.job, state="running", started=now, attempts=job.job.attempts + 1)
                self.count(waits=1, wait_seconds=max(0.0, now - job.job.created))
                self._publish(job, "started")
                self._tell_positions()
            return job.todo.popleft()

    def is_watched(self, job: Unfinished) -> bool:
        """Return whether somebody watches the previews of a job."""
        return self._hub.is_watched(job.job.id, previews=True)

    def note(self, job: Unfinished, message: str) -> None:
        """Keep a sentence about a job, and tell it; one that was said before is not said again."""
        with self.changed:
            if job.ended or message in job.job.notes:
                return
            notes = (*job.job.notes, message)
            self._store.set_notes(job.job.id, notes)
            job.job = replace(job.job, notes=notes)
            self._publish(job, "note", message=message)

    def stepped(
        self,
        jobs: Sequence[tuple[Unfinished, int]],
        seconds: float,
        lap: float,
        previews: Callable[[Unfinished], bytes | None],
        beside: int = 0,
    ) -> None:
        """Note a step: pictures of each job that made it, and how long it took (see `Pace.step`).

        previews: makes that of a job, for those who watch. beside: pictures that were drawn elsewhere meanwhile.
        """
        rows = sum(count for _, count in jobs)
        # Outside of the lock, for they take a while.
        made = {id(job): previews(job) for job, _ in jobs if self.is_watched(job)}
        with self.changed:
            self._pace.step(jobs[0][0].kind, seconds, lap, rows + beside)
            for job, count in jobs:
                if not job.ended:
                    job.advance(count)
                    self._publish(job, "step", preview=made.get(id(job)))
            self._tell_positions()

    def add(self, job: Unfinished, picture: JobPicture) -> bool:
        """Add a picture whose file is written, the last one ends the job; return False if the job has ended before."""
        with self.changed:
            if job.ended or not self._store.add_picture(job.job.id, picture):
                return False
            pictures = sorted((*job.job.pictures, picture), key=lambda each: each.index)
            job.job = replace(job.job, pictures=tuple(pictures))
            self.count(pictures=1)
            self._publish(job, "picture", picture=picture)
            if len(pictures) == job.job.request.count:
                self.end(job, "done")
            return True

    def end(self, job: Unfinished, state: JobState, error: str | None = None) -> None:
        """End a job for its client, once."""
        with self.changed:
            if job.ended:
                return
            now = time.time()
            try:
                self._store.finish(job.job.id, state, now, error)
            except OutputError:
                # A full disk: it has ended for its client, and the next engine draws it again.
                _LOG.exception("the end of job %s can't be stored", job.job.id)
            job.ended = True
            job.todo.clear()
            step = job.job.total if state == "done" else job.job.step
            job.job = replace(job.job, state=state, finished=now, error=error, step=step)
            del self._jobs[job.job.id]
            self.count(**{state: 1})
            self._hub.publish(ending(job.job))
            self._tell_positions()
            self.changed.notify_all()

    def put_back(self) -> None:
        """Let what is drawn wait for the next engine; the attempt does not count, for it ended on purpose."""
        with self.changed:
            for job in self._jobs.values():
                if not job.waits:
                    self._store.put_back(job.job.id, counts=False)
                    job.ended = True

    def count(self, **more: float) -> None:
        """Add to counters of the statistics."""
        with self.changed:
            grown = {name: getattr(self._stats, name) + value for name, value in more.items()}
            self._stats = replace(self._stats, **grown)

    def _end_stale(self, job: Job) -> None:
        """End the unfinished jobs of the same owner and token."""
        for each in list(self._jobs.values()):
            if each.job.live == job.live and each.job.owner == job.owner:
                self.end(each, "cancelled")

    def _publish(
        self,
        job: Unfinished,
        kind: EventKind,
        *,
        preview: bytes | None = None,
        picture: JobPicture | None = None,
        message: str | None = None,
    ) -> None:
        if self._hub.is_watched(job.job.id):
            self._hub.publish(
                JobEvent(kind=kind, job=self._now(job), preview=preview, picture=picture, message=message)
            )

    def _tell_positions(self) -> None:
        """Tell those who wait where they are, now and then: each of many would hear of each of many others."""
        now = time.monotonic()
        if now - self._told < _TELLING:
            return
        self._told = now
        for job, position, eta in list(self._line()):
            if self._hub.is_watched(job.job.id):
                self._hub.publish(JobEvent(kind="queued", job=replace(job.job, position=position, eta=eta)))

    def _line(self) -> Iterator[tuple[Unfinished, int, float | None]]:
        """Yield the waiting jobs with their positions, and the seconds of the worker's time until each is done."""
        position, seconds = 0, 0.0
        known = True
        for job in self._jobs.values():
            own = self._pace.seconds_of(job.kind, job.steps_left)
            known = known and own is not None
            seconds += own or 0.0
            if job.waits:
                yield job, position, seconds if known else None
                position += 1

    def _now(self, job: Unfinished) -> Job:
        """Return a job with its position and its ETA."""
        if not job.waits:
            active = job.job.request.count - len(job.todo) - len(job.job.pictures)
            laps = -(-job.steps_left // max(1, active))
            return replace(job.job, eta=self._pace.seconds_left(job.kind, laps))
        position, eta = next((at, eta) for each, at, eta in self._line() if each is job)
        return replace(job.job, position=position, eta=eta)

    def _seconds(self, jobs: Iterable[Unfinished]) -> float | None:
        """Return the seconds of the worker's time that jobs take; None if nothing was measured yet."""
        parts = [self._pace.seconds_of(each.kind, each.steps_left) for each in jobs]
        known = [part for part in parts if part is not None]
        return sum(known) if len(known) == len(parts) else None
