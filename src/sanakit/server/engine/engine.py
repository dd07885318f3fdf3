"""`Engine`: the way in. Jobs are checked here, before they are accepted, and drawn by the worker's thread.

Every method may be called from any thread and returns within milliseconds; none waits for a network. Locks are taken in
one order: that of the book of jobs, then the store's, then those of subscriptions.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from sanakit.base.errors import RequestError
from sanakit.base.files import ensure_writable_folder
from sanakit.base.locks import hold
from sanakit.pipeline.memory import available_bytes
from sanakit.pipeline.plan import Plan, make_plan
from sanakit.pipeline.request import ImageRequest
from sanakit.server.engine.book import Book
from sanakit.server.engine.catalogue import Catalogue
from sanakit.server.engine.config import EngineConfig
from sanakit.server.engine.drawing import Unfinished
from sanakit.server.engine.errors import JobNotFoundError, PictureNotFoundError, reason
from sanakit.server.engine.files import Files, input_images, with_inputs
from sanakit.server.engine.jobs import Job, JobEvent, JobSpec, JobState
from sanakit.server.engine.models import Free, Models
from sanakit.server.engine.retention import Retention
from sanakit.server.engine.scheduler import Scheduler
from sanakit.server.engine.stats import EngineStats
from sanakit.server.engine.store import Store
from sanakit.server.engine.subscriptions import Hub, Subscription
from sanakit.server.engine.worker import MakeExecutor, Worker


class Engine:
    """Draws jobs, many at once, and keeps them and their pictures in a data folder.

    free: bytes that a device has left, as it is measured. executor: makes what draws, this process if none is given.

    Raises OutputError if the folder can't be written or another engine uses it, ConfigError if it is of another
    version, and ModelNotFoundError, ConfigError or WeightsError for models, LoRAs and ControlNets that can't be used.
    """

    def __init__(
        self, config: EngineConfig, free: Free = available_bytes, executor: MakeExecutor = Scheduler
    ) -> None:
        self.config = config
        self._held = ExitStack()
        data = ensure_writable_folder(config.data)
        self._held.enter_context(hold(data / ".lock", "serves"))
        try:
            self.catalogue = Catalogue(config)
            self._store = Store(data / "jobs.sqlite3")
            self._held.callback(self._store.close)
            self._files, self._hub = Files(data), Hub()
            self._models = Models(self.catalogue.models, free)
            self._book = Book(config, self._store, self._hub)
            self._executor = executor(config, self.catalogue, self._models, self._book, self._files)
            self._worker = Worker(self._book, self._executor)
            self._retention = Retention(config, self._store, self._expire)
            self._sweep()
        except BaseException:
            self._held.close()
            raise
        # Between the writing of inputs and the job that needs them nobody may remove what no job needs.
        self._inputs = threading.Lock()
        self._stopping, self._stopped = threading.Lock(), False

    def start(self) -> None:
        """Begin to draw: first what waited or was drawn when the last engine of this folder ended."""
        self._book.restore(self._restored, reason)
        self._worker.start()
        self._retention.start()

    def stop(self, *, drain: bool = False, seconds: float = 30.0) -> None:
        """Stop, and free the data folder; all subscriptions end.

        drain: finish the pictures that are being drawn, for at most so many seconds. Without it, and for what is left
        then, the worker stops between two steps, and jobs that ran wait for the next engine. May be called again, also
        by another thread that will not wait for the draining.
        """
        self._worker.halt(drain=drain)
        with self._stopping:
            if not self._stopped:
                self._worker.join(seconds)
                self._retention.stop()
                self._hub.close()
                self._held.close()
                self._stopped = True

    def submit(self, spec: JobSpec) -> Job:
        """Accept a job, for good: from now on it is finished, whatever happens to this process.

        Raises ModelNotFoundError; RequestError for what the model can't draw or a limit of the configuration;
        ShortageError if this machine has too little memory for it; QueueFullError.
        """
        model = self.catalogue.model(spec.model)
        self._check_limits(spec)
        plan = make_plan(model.spec, spec.request)
        self._check_size(plan)
        self._models.check(spec.model, plan)
        job = Job(
            id=secrets.token_hex(16), model=spec.model, request=_without_content(plan.request), owner=spec.owner,
            live=spec.live, created=time.time(), total=plan.steps * plan.request.count,
            attempts=spec.attempts,
        )  # fmt: skip
        images = input_images(spec.request)
        with self._inputs:
            for image in images:
                self._files.write_input(image)
            self._book.submit(Unfinished.of(job, plan, self._models), {image.sha256 for image in images})
        return self.get(job.id)

    def get(self, job_id: str, owner: str | None = None) -> Job:
        """Return a job as it is now. owner: who asks; None sees all. Raises JobNotFoundError."""
        job = self._store.get(job_id)
        if owner is not None and job.owner != owner:
            raise JobNotFoundError("there is no job with this id")
        return self._book.seen(job)

    def list(
        self,
        *,
        owner: str | None = None,
        state: JobState | None = None,
        text: str | None = None,
        before: str | None = None,
        limit: int = 50,
    ) -> Sequence[Job]:
        """Return jobs, the newest first.

        owner: whose; None for everybody's. text: words that their prompts hold. before: the id of a job; only older
        ones are returned.
        """
        states = () if state is None else (state,)
        found = self._store.find(owner=owner, states=states, text=text, before=before, limit=limit)
        return [self._book.seen(job) for job in found]

    def cancel(self, job_id: str, owner: str | None = None) -> Job:
        """End a job: at once if it waits, at the next step boundary if it is drawn, not at all if it is finished.

        Raises JobNotFoundError.
        """
        self.get(job_id, owner)
        self._book.cancel(job_id)
        return self.get(job_id, owner)

    def delete(self, job_id: str, owner: str | None = None) -> None:
        """Forget a job: cancel it, and remove its pictures and what no other job needs. Raises JobNotFoundError."""
        self._remove(self.cancel(job_id, owner))

    def subscribe(self, job_id: str, owner: str | None = None, *, previews: bool = False) -> Subscription:
        """Listen to a job: a snapshot, what happens, and the event that ends it. Raises JobNotFoundError.

        previews: steps carry pictures, which are made only for those who ask.
        """
        self.get(job_id, owner)
        subscription = self._hub.subscribe(job_id, previews=previews)
        subscription.begin(JobEvent(kind="snapshot", job=self.get(job_id)))
        return subscription

    def picture(self, picture_id: str, owner: str | None = None) -> bytes:
        """Return a picture as PNG, with its record. Raises PictureNotFoundError."""
        if owner is not None and self._store.owner_of_picture(picture_id) != owner:
            raise PictureNotFoundError("there is no picture with this id")
        return self._files.read_picture(picture_id)

    def input(self, job_id: str, sha256: str, owner: str | None = None) -> bytes:
        """Return a picture that a job was given, as PNG. Raises JobNotFoundError or PictureNotFoundError."""
        job = self.get(job_id, owner)
        if sha256 not in {image.sha256 for image in input_images(job.request)}:
            raise PictureNotFoundError("the job was given no such picture")
        return self._files.input_png(sha256)

    def complete(self, request: ImageRequest) -> ImageRequest:
        """Return the request of a job with its files, as it can be submitted again.

        Raises RequestError for a LoRA or ControlNet that isn't offered any more, PictureError for a lost picture.
        """
        return with_inputs(self.catalogue.with_files(request), self._files)

    def capabilities(self) -> dict[str, Any]:
        """Return models with their defaults, solvers and words, LoRAs, controls and limits, as JSON."""
        return self.catalogue.describe()

    @property
    def stats(self) -> EngineStats:
        """What was counted and measured so far."""
        prompts = self._executor.prompts()
        return replace(
            self._book.stats(), drawing=self._executor.drawing, prompt_hits=prompts.hits,
            prompt_misses=prompts.misses, model_bytes=self._models.bytes,
            free_bytes=self._models.free(self.catalogue.default),
        )  # fmt: skip

    @property
    def is_ready(self) -> bool:
        """Whether the worker draws: after `start`, once the default model is in memory."""
        return self._worker.ready.is_set()

    def _restored(self, job: Job) -> Unfinished:
        """Return a job of the last engine. Raises for what can't be drawn any more."""
        request = self.complete(job.request)
        return Unfinished.of(job, make_plan(self.catalogue.model(job.model).spec, request), self._models)

    def _expire(self, job_id: str) -> None:
        self._remove(self._store.get(job_id))
        self._book.count(expired=1)

    def _remove(self, job: Job) -> None:
        """Remove a finished job, then its files: in this order, so that a row never lacks its file."""
        with self._inputs:
            for sha256 in self._store.delete(job.id):
                self._files.remove_input(sha256)
        for picture in job.pictures:
            self._files.remove_picture(picture.id)

    def _sweep(self) -> None:
        """Remove files that a killed process had written and not yet noted."""
        noted = self._store.pictures()
        for picture in self._files.all_pictures():
            if picture not in noted:
                self._files.remove_picture(picture)
        for sha256 in self._files.all_inputs():
            if not self._store.needs_input(sha256):
                self._files.remove_input(sha256)

    def _check_limits(self, spec: JobSpec) -> None:
        count, most = spec.request.count, self.config.count
        if count > most:
            raise RequestError(f"count may be {most} here, not {count}: ask for them in several jobs")

    def _check_size(self, plan: Plan) -> None:
        if plan.steps > self.config.steps:
            raise RequestError(f"steps may be {self.config.steps} here, not {plan.steps}")
        pixels = max(plan.size.width * plan.size.height, plan.drawn.width * plan.drawn.height)
        if pixels > self.config.pixels:
            raise RequestError(f"a picture may have {self.config.pixels:,} pixels here, not {pixels:,}")


def _without_content(request: ImageRequest) -> ImageRequest:
    """Return a request as it is stored: a queue of pixels would fill the memory."""
    return ImageRequest.from_json(request.to_json())
