"""Unfinished jobs in memory, and their pictures in groups that share forward passes.

What is here is guarded by the book's lock, but for the networks' own values, which only the worker touches.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from sanakit.flow import State
from sanakit.pipeline.batching import BatchedDenoiser
from sanakit.pipeline.denoiser import Drawing
from sanakit.pipeline.loras import LoRAFile
from sanakit.pipeline.plan import Plan
from sanakit.server.engine.jobs import Job
from sanakit.server.engine.models import Models
from sanakit.server.engine.stages import Prepared


@dataclass(frozen=True)
class Kind:
    """What pictures of one forward pass have in common. shape: of their latents [C, h, w]."""

    model: str
    loras: tuple[LoRAFile, ...]
    shape: tuple[int, int, int]


@dataclass(kw_only=True, eq=False)
class Unfinished:
    """A job that waits or is drawn.

    job           as it is now
    kind          what it can be drawn with
    work          bytes alive while the transformer works for one picture
    sample_bytes  bytes of one sample in a forward pass; branches: samples of a picture
    todo          numbers of the pictures that are not begun
    retried       whether an attempt ended with its process: it is drawn alone, so that it takes nobody with it again
    ended         whether it is finished for its client: its pictures are dropped at the next step boundary
    prepared      what all its pictures share; the worker's
    """

    job: Job
    kind: Kind
    work: int
    sample_bytes: int
    branches: int
    todo: deque[int]
    retried: bool = False
    ended: bool = False
    prepared: Prepared | None = None
    since: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, job: Job, plan: Plan, models: Models) -> Unfinished:
        """Return a job as the worker takes it."""
        have = {picture.index for picture in job.pictures}
        return cls(
            job=job,
            kind=Kind(job.model, plan.request.loras, plan.latent_shape),
            work=models.work(job.model, plan, "transformer"),
            sample_bytes=models.sample_bytes(job.model, plan),
            branches=plan.branches * (2 if plan.edit is not None and plan.edit.words is not None else 1),
            todo=deque(index for index in range(job.request.count) if index not in have),
            retried=job.attempts > 0,
        )

    @property
    def waits(self) -> bool:
        """Whether nothing of it was begun."""
        return self.job.state == "queued"

    @property
    def steps_left(self) -> int:
        """Solver steps of all its pictures that are not made."""
        return max(0, self.job.total - self.job.step)

    def advance(self, steps: int) -> None:
        """Count steps that were made."""
        self.job = replace(self.job, step=min(self.job.total, self.job.step + steps))


@dataclass(kw_only=True, eq=False)
class Ongoing:
    """A picture on its way. last: its latest state."""

    owner: Unfinished
    index: int
    prepared: Prepared
    drawing: Drawing
    last: State | None = None

    @property
    def latent(self) -> Tensor:
        """The finished latent [1, C, h, w]."""
        assert self.last is not None and self.drawing.finished
        return self.last.x


class Group:
    """Pictures of one kind, which are drawn together.

    served: seconds of the worker's time so far; the group with the fewest is next, so that groups of small pictures
    make as many steps as fit beside one of large ones. most: samples of a pass; less than all once memory ran out.
    """

    def __init__(self, kind: Kind, denoiser: BatchedDenoiser, served: float) -> None:
        self.kind, self.denoiser, self.served = kind, denoiser, served
        self.pictures: list[Ongoing] = []
        self.most: int | None = None
        self.stepped = time.monotonic()

    @property
    def samples(self) -> int:
        """Samples in a pass at most, of all its pictures."""
        return sum(each.owner.branches for each in self.pictures)

    def chosen(self) -> list[Ongoing]:
        """Return the pictures that make the next step: all, or those that waited longest, as many as memory allows."""
        if self.most is None:
            return list(self.pictures)
        found, samples = list[Ongoing](), 0
        for each in self.pictures:
            samples += each.owner.branches
            if found and samples > self.most:
                break
            found.append(each)
        return found

    def step(self, chosen: Sequence[Ongoing]) -> list[Ongoing]:
        """Make a step of some pictures in one pass; return those whose numbers broke, which have made none.

        Nothing has changed if this raises.
        """
        inputs = [(each, own) for each in chosen for own in each.drawing.inputs()]
        velocities = self.denoiser.predict([own for _, own in inputs])
        broken = []
        for each in chosen:
            own = [found for (owner, _), found in zip(inputs, velocities, strict=True) if owner is each]
            if all(bool(torch.isfinite(found).all()) for found in own):
                each.last = each.drawing.answer(own) or each.last
            else:
                broken.append(each)
        made = set(map(id, chosen))
        self.pictures.sort(key=lambda each: id(each) in made)  # stable: the others are next
        return broken
