"""The worker: one thread that owns the networks, and draws many pictures a step at a time.

A turn drops what has ended, admits what may be begun, and makes one step of one group. Nothing waits for a whole
picture: a job joins, and leaves, between two steps of the others.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence

import torch

from sanakit.base.errors import SanakitError
from sanakit.base.memory import ADVICE, is_shortage
from sanakit.base.threads import choose_threads, use_threads
from sanakit.pipeline.plan import Plan, make_plan
from sanakit.pipeline.png import Record, encode_picture
from sanakit.pipeline.threads import transformer_product
from sanakit.server.book import Book
from sanakit.server.catalogue import Catalogue
from sanakit.server.config import EngineConfig
from sanakit.server.drawing import Group, Kind, Ongoing, Unfinished
from sanakit.server.files import Files, with_inputs
from sanakit.server.groups import Groups, lap
from sanakit.server.jobs import Job, JobPicture
from sanakit.server.models import Models
from sanakit.server.previews import Previews
from sanakit.server.stages import Stages

_LOG = logging.getLogger("sanakit.server")
_LONG_STEP = 30.0
"""Seconds that a step may take before the worker is left behind when an engine stops."""
_ADMISSION = 0.25
"""Seconds of a turn for beginning pictures; then those that are on their way make a step."""


class Scheduler:
    """The worker of an engine."""

    def __init__(
        self, config: EngineConfig, catalogue: Catalogue, models: Models, book: Book, files: Files
    ) -> None:
        self._config, self._catalogue, self._models = config, catalogue, models
        self._book, self._files = book, files
        self._groups = Groups(config, models)
        self.stages = Stages(models, config.prompts, config.threads, self._groups.parts)
        self._previews = Previews(config.data / "previews", self.stages)
        self._draining = self._halted = False
        self.ready = threading.Event()
        self._thread = threading.Thread(target=self._work, name="sanakit-worker", daemon=True)

    @property
    def drawing(self) -> int:
        """Pictures on their way."""
        return self._groups.pictures

    def describe(self, job: Job, plan: Plan) -> Unfinished:
        """Return a job as the worker takes it."""
        have = {picture.index for picture in job.pictures}
        return Unfinished(
            job=job,
            kind=Kind(job.model, plan.request.loras, plan.latent_shape),
            work=self._models.work(job.model, plan, "transformer"),
            sample_bytes=self._models.sample_bytes(job.model, plan),
            branches=plan.branches * (2 if plan.edit is not None and plan.edit.words is not None else 1),
            todo=deque(index for index in range(job.request.count) if index not in have),
            retried=job.attempts > 0,
        )

    def start(self) -> None:
        """Take over what the last engine left, and begin."""
        self._book.restore(lambda job: self.describe(job, self._plan(job)), _reason)
        self._thread.start()

    def halt(self, *, drain: bool) -> None:
        """Begin nothing more, and stop between two steps: the next ones, or with `drain` the last of all pictures."""
        with self._book.changed:
            self._draining, self._halted = True, self._halted or not drain
            self._book.changed.notify_all()

    def join(self, seconds: float) -> None:
        """Wait until the worker has stopped, `seconds` for its pictures and as long again for its step."""
        if self._thread.ident is not None:
            self._thread.join(seconds)
            self.halt(drain=False)
            self._thread.join(max(seconds, _LONG_STEP))
        self._book.put_back()

    def _plan(self, job: Job) -> Plan:
        request = with_inputs(self._catalogue.with_files(job.request), self._files)
        return make_plan(self._catalogue.model(job.model).spec, request)

    def _work(self) -> None:
        self._warm()
        self.ready.set()
        while self._turn():
            pass

    def _warm(self) -> None:
        """Load the default model, so that the first picture does not wait for it; a job says why if it can't be."""
        try:
            for part in ("text", "transformer", "decoder"):
                self._models.need(self._catalogue.default, part)
        except Exception:
            _LOG.exception("the default model can't be loaded")

    def _turn(self) -> bool:
        """Do what is next; return False when the worker is to end."""
        with self._book.changed:
            self._book.changed.wait_for(self._has_work)
            if self._halted or (self._draining and not len(self._groups)):
                return False
        self._groups.drop(lambda each: each.owner.ended)
        if not self._draining:
            self._admit()
        if len(self._groups):
            self._step(self._groups.next())
        return True

    def _has_work(self) -> bool:
        return self._draining or self._halted or len(self._groups) > 0 or self._book.has_todo()

    def _admit(self) -> None:
        until, refusal = time.monotonic() + _ADMISSION, self._groups.refusal
        while time.monotonic() < until and (job := self._book.next(refusal())) is not None:
            index = self._book.begin(job)
            if index is not None:
                self._begin(job, index)

    def _begin(self, job: Unfinished, index: int) -> None:
        """Bring a picture to its first step; prepares its job if it is the job's first."""
        try:
            if job.prepared is None:
                request = with_inputs(self._catalogue.with_files(job.job.request), self._files)
                model = self._catalogue.model(job.kind.model)
                job.prepared = self.stages.prepare(job.kind.model, model, request)
                for message in job.prepared.notes:
                    self._book.note(job, message)
            if not job.prepared.denoisers:
                self._develop(job, index, None)
            else:
                self._groups.join(
                    Ongoing(owner=job, index=index, prepared=job.prepared, drawing=job.prepared.begin(index))
                )
        except Exception as error:
            self._fail(job, error)

    def _step(self, group: Group) -> None:
        chosen, started = group.chosen(), time.monotonic()
        try:
            with use_threads(self._threads(group, chosen)), self._models.working(_bytes(chosen)):
                broken = group.step(chosen)
        except Exception as error:
            broken = self._after(group, chosen, error)
        seconds = time.monotonic() - started
        group.served += seconds
        for each in broken:
            self._fail_alone(each)
        made = Counter(each.owner for each in chosen)
        self._book.stepped(list(made.items()), seconds, lap(group), lambda job: self._preview(group, job))
        finished = [each for each in group.pictures if each.drawing.finished]
        for each in finished:
            if not each.owner.ended:
                self._develop(each.owner, each.index, each)
        self._groups.drop(lambda each: each.drawing.finished or each.owner.ended)

    def _after(self, group: Group, chosen: Sequence[Ongoing], error: Exception) -> list[Ongoing]:
        """Go on after a pass that raised: with fewer pictures if memory ran out, else with each alone."""
        if len(chosen) == 1:
            self._fail(chosen[0].owner, error)
            return []
        if is_shortage(error):
            group.most = max(1, sum(each.owner.branches for each in chosen) // 2)
            _LOG.warning("memory ran out at %d pictures: going on with half of them", len(chosen))
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            return []
        broken = []
        for each in chosen:
            try:
                broken += group.step([each])
            except Exception as own:
                self._fail(each.owner, own)
        return broken

    def _fail_alone(self, picture: Ongoing) -> None:
        """Repeat a step whose numbers broke by itself, which says in which layer."""
        try:
            picture.last = picture.drawing.advance() or picture.last
        except Exception as error:
            self._fail(picture.owner, error)

    def _develop(self, job: Unfinished, index: int, picture: Ongoing | None) -> None:
        """Decode a picture, write it, and only then say that it is there."""
        prepared = job.prepared
        assert prepared is not None
        try:
            image = self.stages.develop(prepared, None if picture is None else picture.latent)
            record = Record(request=prepared.plan.request.picture(index), made=prepared.model.provenance)
            width, height = image.size
            made = JobPicture(
                id=secrets.token_hex(16),
                index=index,
                seed=prepared.plan.seeds[index],
                width=width,
                height=height,
            )
            self._files.write_picture(made.id, encode_picture(image, record, self._config.signer))
            if not self._book.add(job, made):
                self._files.remove_picture(made.id)
        except Exception as error:
            self._fail(job, error)

    def _preview(self, group: Group, job: Unfinished) -> bytes | None:
        """The preview of the first picture of a job that is on its way."""
        own = [each for each in group.pictures if each.owner is job and each.last is not None]
        first = min(own, key=lambda each: each.index, default=None)
        if first is None or first.last is None:
            return None
        return self._previews.jpeg(first.prepared, first.last.x0)

    def _threads(self, group: Group, chosen: Sequence[Ongoing]) -> int:
        """Threads of a pass by the size of its products; the sums of a batch differ from those alone anyway."""
        model = chosen[0].prepared.model
        if model.precision.device.type != "cpu":
            return chosen[0].prepared.threads["denoise"].count
        config, (_, height, width) = model.spec.transformer, group.kind.shape
        samples = sum(each.owner.branches for each in chosen)
        tokens = samples * height * width // config.patch_size**2
        return choose_threads(transformer_product(config, tokens), self._config.threads).count

    def _fail(self, job: Unfinished, error: Exception) -> None:
        if not isinstance(error, SanakitError) and not is_shortage(error):
            _LOG.error("job %s failed", job.job.id, exc_info=error)
        self._book.end(job, "failed", _reason(error))


def _bytes(chosen: Sequence[Ongoing]) -> int:
    """Bytes alive during a pass."""
    return sum(each.owner.branches * each.owner.sample_bytes for each in chosen)


def _reason(error: Exception) -> str:
    """Why a job failed, one sentence."""
    if isinstance(error, SanakitError):
        return str(error)
    if is_shortage(error):
        return f"not enough memory: {ADVICE}"
    return f"unexpected {type(error).__name__}: {error}"
