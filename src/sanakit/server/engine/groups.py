"""The groups that take turns on the worker, and who may join them."""

from __future__ import annotations

import time
from collections.abc import Callable

from sanakit.pipeline.batching import BatchedDenoiser
from sanakit.server.engine.book import FULL, Refusal
from sanakit.server.engine.config import EngineConfig
from sanakit.server.engine.drawing import Group, Kind, Ongoing, Unfinished
from sanakit.server.engine.models import MARGIN, Models, Part


class Groups:
    """Groups by kind. Only the worker's thread changes them."""

    def __init__(self, config: EngineConfig, models: Models) -> None:
        self._config, self._models = config, models
        self._groups: dict[Kind, Group] = {}

    def __len__(self) -> int:
        return len(self._groups)

    @property
    def pictures(self) -> int:
        """Pictures on their way."""
        return sum(len(group.pictures) for group in list(self._groups.values()))

    def parts(self) -> set[Part]:
        """Return the parts of models that the groups draw with."""
        return {(kind.model, "transformer") for kind in self._groups}

    def refusal(self) -> Callable[[Unfinished], Refusal | None]:
        """Return what says why a job's next picture may not join now; it measures memory once for each kind."""
        known: dict[tuple[Kind, bool], Refusal | None] = {}

        def refuse(job: Unfinished) -> Refusal | None:
            key = job.kind, job.retried
            if key not in known:
                known[key] = self._refusal(job)
            return known[key]

        return refuse

    def join(self, picture: Ongoing) -> None:
        """Add a picture to its group; a new one begins level with the group that was served least."""
        kind = picture.owner.kind
        if kind not in self._groups:
            served = min((group.served for group in self._groups.values()), default=0.0)
            denoiser = BatchedDenoiser(picture.prepared.model.parts.transformer)
            self._groups[kind] = Group(kind, denoiser, served)
        self._groups[kind].pictures.append(picture)

    def next(self) -> Group:
        """Return the group whose turn it is."""
        return min(self._groups.values(), key=lambda group: group.served)

    def drop(self, gone: Callable[[Ongoing], bool]) -> None:
        """Remove pictures, and groups that have none left."""
        for kind, group in list(self._groups.items()):
            group.pictures = [each for each in group.pictures if not gone(each)]
            if not group.pictures:
                del self._groups[kind]

    def _refusal(self, job: Unfinished) -> Refusal | None:
        """Return why a job can't be drawn beside the others now; without others it can, else nothing would go on."""
        if not self._groups:
            return None
        retried = any(each.owner.retried for group in self._groups.values() for each in group.pictures)
        if job.retried or retried:
            return "a job that ended with its process once is drawn alone"
        group = self._groups.get(job.kind)
        if group is not None:
            return None if self._has_place(group, job) else FULL
        if len(self._groups) >= self._config.groups:
            return "as many groups as may take turns already"
        others = [kind for kind in self._groups if kind.model == job.kind.model]
        if any(kind.loras != job.kind.loras for kind in others):
            return "the transformer has other LoRAs on it"
        if not self._models.fits(job.kind.model, ("text", "transformer"), job.work, self.parts()):
            return "its model does not fit beside those in use"
        return None

    def _has_place(self, group: Group, job: Unfinished) -> bool:
        if len(group.pictures) >= self._config.batch or group.most is not None:
            return False
        if not self._models.batches(job.kind.model):
            return False
        free = self._models.free(job.kind.model)
        return free is None or MARGIN * free >= (group.samples + job.branches) * job.sample_bytes


def lap(group: Group) -> float:
    """Return the seconds since the group's last step, and begin to count anew."""
    now = time.monotonic()
    passed, group.stepped = now - group.stepped, now
    return passed
