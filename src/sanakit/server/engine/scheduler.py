"""Draws many pictures a step at a time, in the worker's thread, which owns the networks.

A turn drops what has ended, admits what may be begun, and makes one step of one group. Nothing waits for a whole
picture: a job joins, and leaves, between two steps of the others.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections import Counter
from collections.abc import Sequence

import torch

from sanakit.base.errors import SanakitError
from sanakit.base.memory import is_shortage
from sanakit.base.threads import choose_threads, use_threads
from sanakit.pipeline.png import Record, encode_picture
from sanakit.pipeline.threads import transformer_product
from sanakit.server.engine.book import Book
from sanakit.server.engine.catalogue import Catalogue
from sanakit.server.engine.config import EngineConfig
from sanakit.server.engine.drawing import Group, Ongoing, Unfinished
from sanakit.server.engine.errors import reason
from sanakit.server.engine.files import Files, with_inputs
from sanakit.server.engine.groups import Groups, lap
from sanakit.server.engine.jobs import JobPicture
from sanakit.server.engine.models import Models
from sanakit.server.engine.previews import Previews
from sanakit.server.engine.stages import Stages
from sanakit.text import CacheInfo

_LOG = logging.getLogger("sanakit.server")
_ADMISSION = 0.25
"""Seconds of a turn for beginning pictures; then those that are on their way make a step."""


class Scheduler:
    """The executor of this machine: networks in this process, and continuous batching."""

    def __init__(
        self, config: EngineConfig, catalogue: Catalogue, models: Models, book: Book, files: Files
    ) -> None:
        self._config, self._catalogue, self._models = config, catalogue, models
        self._book, self._files = book, files
        self._groups = Groups(config, models)
        self.stages = Stages(models, config.prompts, config.threads, self._groups.parts)
        self._previews = Previews(config.data / "previews", self.stages)

    @property
    def drawing(self) -> int:
        """Pictures on their way."""
        return self._groups.pictures

    def prompts(self) -> CacheInfo:
        """Return hits and misses of encoded prompts."""
        return self.stages.prompts()

    def warm(self) -> None:
        """Load the default model, so that the first picture does not wait for it; a job says why if it can't be."""
        try:
            for part in ("text", "transformer", "decoder"):
                self._models.need(self._catalogue.default, part)
        except Exception:
            _LOG.exception("the default model can't be loaded")

    def has_work(self, admits: bool) -> bool:
        """Return whether a turn would do something."""
        return len(self._groups) > 0 or (admits and self._book.has_todo())

    def turn(self, admits: bool) -> None:
        """Do what is next."""
        self._groups.drop(lambda each: each.owner.ended)
        if admits:
            self._admit()
        if len(self._groups):
            self._step(self._groups.next())

    def close(self) -> None:
        """Nothing is left behind: pictures on their way end with the worker."""

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
        before = [each.last for each in chosen]
        try:
            with use_threads(self._threads(group, chosen)), self._models.working(_bytes(chosen)):
                broken = group.step(chosen)
        except Exception as error:
            broken = self._after(group, chosen, error)
        seconds = time.monotonic() - started
        group.served += seconds
        for each in broken:
            self._fail_alone(each)
        # Between the averages of an edit by words, and after a pass that failed, no step was made.
        made = Counter(each.owner for each, last in zip(chosen, before, strict=True) if each.last is not last)
        self._book.count(forwards=1, forward_seconds=seconds, rows=len(chosen))
        if made:
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
            quick = job.job.live is not None  # somebody waits for it, and it goes with the next one
            self._files.write_picture(
                made.id, encode_picture(image, record, self._config.signer, quick=quick)
            )
            if not self._book.add(job, made):
                self._files.remove_picture(made.id)
        except Exception as error:
            self._fail(job, error)

    def _preview(self, group: Group, job: Unfinished) -> bytes | None:
        """Return the preview of the first picture of a job that is on its way."""
        own = [each for each in group.pictures if each.owner is job and each.last is not None]
        first = min(own, key=lambda each: each.index, default=None)
        if first is None or first.last is None:
            return None
        try:
            return self._previews.jpeg(first.prepared, first.last.x0)
        except Exception:  # the picture is what counts
            _LOG.exception("a preview can't be made")
            return None

    def _threads(self, group: Group, chosen: Sequence[Ongoing]) -> int:
        """Choose the threads of a pass by the size of its products: the sums of a batch differ from those alone."""
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
        self._book.end(job, "failed", reason(error))


def _bytes(chosen: Sequence[Ongoing]) -> int:
    """Return the bytes alive during a pass."""
    return sum(each.owner.branches * each.owner.sample_bytes for each in chosen)
