"""`Engine`: the way in. Jobs are checked here, before they are accepted, and drawn by the scheduler's thread.

Every method may be called from any thread and returns within milliseconds; none waits for a network. Locks are taken in
one order: the scheduler's, then the store's, then that of subscriptions.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from sanakit.base.errors import RequestError
from sanakit.base.files import ensure_writable_folder
from sanakit.base.locks import hold
from sanakit.pipeline.plan import Plan, make_plan
from sanakit.server.catalogue import Catalogue
from sanakit.server.config import EngineConfig
from sanakit.server.errors import JobNotFoundError, PictureNotFoundError
from sanakit.server.files import Files, input_images
from sanakit.server.jobs import Job, JobEvent, JobSpec, JobState
from sanakit.server.scheduler import Scheduler
from sanakit.server.stats import EngineStats
from sanakit.server.store import Store
from sanakit.server.subscriptions import Hub, Subscription


class Engine:
    """Draws jobs, many at once, and keeps them and their pictures in a data folder.

    Raises OutputError if the folder can't be written or another engine uses it, ConfigError if it is of another
    version, and ModelNotFoundError, ConfigError or WeightsError for models, LoRAs and ControlNets that can't be used.
    """

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        self._held = ExitStack()
        data = ensure_writable_folder(config.data)
        self._held.enter_context(hold(data / ".lock", "serves"))
        try:
            self.catalogue = Catalogue(config)
            self._store = Store(data / "jobs.sqlite3")
            self._held.callback(self._store.close)
            self._files, self._hub = Files(data), Hub()
            self._scheduler = Scheduler(config, self.catalogue, self._store, self._files, self._hub)
        except BaseException:
            self._held.close()
            raise
        # Between the writing of inputs and the job that needs them nobody may remove what no job needs.
        self._inputs = threading.Lock()

    def start(self) -> None:
        """Begin to draw: first what waited or was drawn when the last engine of this folder ended."""
        self._scheduler.start()

    def stop(self, *, drain: bool = False, seconds: float = 30.0) -> None:
        """Stop, and free the data folder; all subscriptions end.

        drain: finish the pictures that are being drawn, for at most so many seconds. Without it, and for what is left
        then, the worker stops between two steps, and jobs that ran wait again. May be called twice.
        """
        self._scheduler.stop(drain=drain, seconds=seconds)
        self._hub.close()
        self._held.close()

    def submit(self, spec: JobSpec) -> Job:
        """Accept a job, for good: from now on it is finished, whatever happens to this process.

        Raises ModelNotFoundError; RequestError for what the model can't draw or a limit of the configuration;
        ShortageError if this machine has too little memory for it; QueueFullError.
        """
        model = self.catalogue.model(spec.model)
        self._check_limits(spec)
        plan = make_plan(model.spec, spec.request)
        self._check_size(plan)
        self._scheduler.check_memory(spec.model, plan)
        job = Job(
            id=secrets.token_hex(16), model=spec.model, request=plan.request, owner=spec.owner, live=spec.live,
            created=time.time(), total=plan.steps * plan.request.count,
        )  # fmt: skip
        images = input_images(spec.request)
        with self._inputs:
            for image in images:
                self._files.write_input(image)
            self._scheduler.submit(job, plan, {image.sha256 for image in images})
        if spec.live is not None:
            self._scheduler.cancel_older(job)
        return self.get(job.id)

    def get(self, job_id: str, owner: str | None = None) -> Job:
        """Return a job as it is now. owner: who asks; None sees all. Raises JobNotFoundError."""
        job = self._store.get(job_id)
        if owner is not None and job.owner != owner:
            raise JobNotFoundError("there is no job with this id")
        return self._scheduler.seen(job)

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
        return [self._scheduler.seen(job) for job in found]

    def cancel(self, job_id: str, owner: str | None = None) -> Job:
        """End a job: at once if it waits, at the next step boundary if it is drawn, not at all if it is finished.

        Raises JobNotFoundError.
        """
        self.get(job_id, owner)
        self._scheduler.cancel(job_id)
        return self.get(job_id, owner)

    def delete(self, job_id: str, owner: str | None = None) -> None:
        """Forget a job: cancel it, and remove its pictures and what no other job needs. Raises JobNotFoundError."""
        job = self.cancel(job_id, owner)
        with self._inputs:
            unused = self._store.delete(job.id)
            for sha256 in unused:
                self._files.remove_input(sha256)
        for picture in job.pictures:
            self._files.remove_picture(picture.id)

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

    def capabilities(self) -> dict[str, Any]:
        """Return models with their defaults, solvers and words, LoRAs, controls and limits, as JSON."""
        return self.catalogue.describe()

    @property
    def stats(self) -> EngineStats:
        """What was counted and measured so far."""
        return self._scheduler.stats()

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
