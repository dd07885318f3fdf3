"""The worker: one thread that owns the networks, and the queue that it draws from."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterable
from dataclasses import replace

from sanakit.base.errors import SanakitError
from sanakit.pipeline.events import Note as NoteEvent
from sanakit.pipeline.events import PictureDone, Step
from sanakit.pipeline.memory import available_bytes, cannot_fit, estimate, shortage, total_bytes
from sanakit.pipeline.plan import Plan
from sanakit.pipeline.png import Record, write_picture
from sanakit.pipeline.shapes import Shapes
from sanakit.server.catalogue import Catalogue
from sanakit.server.config import EngineConfig
from sanakit.server.errors import QueueFullError
from sanakit.server.files import Files, with_inputs
from sanakit.server.jobs import EventKind, Job, JobEvent, JobPicture, JobState, ending
from sanakit.server.stats import EngineStats
from sanakit.server.store import Store
from sanakit.server.subscriptions import Hub


class Scheduler:
    """Draws one job after the other."""

    def __init__(
        self, config: EngineConfig, catalogue: Catalogue, store: Store, files: Files, hub: Hub
    ) -> None:
        self._config, self._catalogue, self._store, self._files, self._hub = (
            config, catalogue, store, files, hub,
        )  # fmt: skip
        self._changed = threading.Condition()
        self._waiting: list[str] = []
        self._running: str | None = None
        self._step = 0
        self._cancelled: set[str] = set()
        self._stopping = False
        self._stats = EngineStats(batch=config.batch)
        self._thread = threading.Thread(target=self._work, name="sanakit-scheduler", daemon=True)

    def start(self) -> None:
        """Begin with what was unfinished."""
        for job in self._store.unfinished():
            if job.state == "running" and job.attempts > 1:
                self._store.finish(job.id, "failed", time.time(), "the server ended twice while it was drawn")
                continue
            self._store.put_back(job.id, counts=True)
            self._waiting.append(job.id)
        self._thread.start()

    def stop(self, *, drain: bool, seconds: float) -> None:
        """Stop; see `Engine.stop`."""
        with self._changed:
            self._stopping = True
            if not drain and self._running is not None:
                self._cancelled.add(self._running)
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(seconds)

    def submit(self, job: Job, plan: Plan, inputs: Iterable[str]) -> None:
        """Take a job. Raises QueueFullError."""
        with self._changed:
            if len(self._waiting) >= self._config.queue:
                self._count(refused=1)
                raise QueueFullError("the queue is full: try again later", 5.0)
            self._store.add(job, inputs)
            self._waiting.append(job.id)
            self._count(submitted=1)
            self._changed.notify_all()

    def check_memory(self, model: str, plan: Plan) -> None:
        """Raise ShortageError if a plan can't be drawn on this machine."""
        from sanakit.base.errors import ShortageError

        chosen = self._catalogue.model(model)
        device, drawn = chosen.precision.device, plan.drawn
        need = estimate(
            Shapes.of(chosen.spec), drawn.width, drawn.height, chosen.precision.dtype, plan.branches, device.type,
            total_bytes(device), plan.edit is not None or bool(plan.controls),
            [each.spec.config for each in plan.controls],
        )  # fmt: skip
        room = available_bytes(device)
        short = shortage(need, room)
        if short is not None and room is not None and cannot_fit(short, room):
            raise ShortageError(
                f"{short.stage} needs about {short.total / 1e9:.1f} GB of memory, and {room / 1e9:.1f} GB can be had: "
                "choose a smaller size"
            )

    def cancel(self, job_id: str) -> None:
        """End a job."""
        with self._changed:
            if job_id == self._running:
                self._cancelled.add(job_id)
                return
            if job_id in self._waiting:
                self._waiting.remove(job_id)
        self._finish(job_id, "cancelled")

    def cancel_older(self, job: Job) -> None:
        """End the unfinished jobs of the same owner and token that came before."""
        for each in self._store.unfinished():
            if each.live == job.live and each.owner == job.owner and each.id != job.id:
                self.cancel(each.id)

    def seen(self, job: Job) -> Job:
        """Return a stored job with its step and its place in the queue."""
        with self._changed:
            if job.id == self._running:
                return replace(job, step=self._step)
            if job.id in self._waiting and job.state == "queued":
                return replace(job, position=self._waiting.index(job.id))
        return job

    def stats(self) -> EngineStats:
        """Return the counters."""
        with self._changed:
            return replace(self._stats, queued=len(self._waiting), running=int(self._running is not None))

    def _count(self, **more: float) -> None:
        self._stats = replace(
            self._stats, **{name: getattr(self._stats, name) + value for name, value in more.items()}
        )

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopping)
                if self._stopping:
                    return
                self._running, self._step = self._waiting.pop(0), 0
            self._draw(self._running)
            with self._changed:
                self._running = None

    def _draw(self, job_id: str) -> None:
        if not self._store.begin(job_id, time.time()):
            return
        job = self._store.get(job_id)
        self._publish("started", job_id)
        try:
            request = with_inputs(self._catalogue.with_files(job.request), self._files)
            model = self._catalogue.model(job.model)
            finished = {picture.index for picture in job.pictures}
            for index in range(request.count):
                for event in model.generate(request.picture(index), lambda: job_id in self._cancelled):
                    if index in finished:
                        break
                    if isinstance(event, Step):
                        self._step = job.steps * index + event.index + 1
                        self._publish("step", job_id)
                    elif isinstance(event, NoteEvent):
                        self._hub.publish(JobEvent(kind="note", job=self.seen(job), message=event.message))
                    elif isinstance(event, PictureDone):
                        self._keep(job_id, index, event, model.provenance)
        except SanakitError as error:
            self._finish(job_id, "failed", str(error))
            return
        except Exception as error:  # the worker goes on, whatever a job trips over
            self._finish(job_id, "failed", f"unexpected {type(error).__name__}: {error}")
            return
        if job_id in self._cancelled and self._stopping:
            self._store.put_back(job_id, counts=False)
            return
        self._finish(job_id, "cancelled" if job_id in self._cancelled else "done")

    def _keep(self, job_id: str, index: int, event: PictureDone, made: dict[str, str]) -> None:
        width, height = event.image.size
        picture = JobPicture(
            id=secrets.token_hex(16), index=index, seed=event.seed, width=width, height=height
        )
        place = self._files.picture(picture.id)
        place.parent.mkdir(exist_ok=True)
        write_picture(place, event.image, Record(request=event.request, made=made))
        self._store.add_picture(job_id, picture)
        self._count(pictures=1)
        self._hub.publish(JobEvent(kind="picture", job=self.seen(self._store.get(job_id)), picture=picture))

    def _publish(self, kind: EventKind, job_id: str) -> None:
        if self._hub.is_watched(job_id):
            self._hub.publish(JobEvent(kind=kind, job=self.seen(self._store.get(job_id))))

    def _finish(self, job_id: str, state: JobState, error: str | None = None) -> None:
        if self._store.finish(job_id, state, time.time(), error):
            self._count(**{state: 1})
            self._hub.publish(ending(self._store.get(job_id)))
        self._cancelled.discard(job_id)
