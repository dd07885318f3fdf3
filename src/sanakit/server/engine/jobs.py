"""Jobs as values: what a client asks for, how far it is, and what happens to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from sanakit.pipeline.request import ImageRequest

JobState = Literal["queued", "running", "done", "failed", "cancelled"]
STATES: tuple[JobState, ...] = get_args(JobState)
FINISHED: tuple[JobState, ...] = ("done", "failed", "cancelled")
"""States that a job stays in."""

EventKind = Literal["snapshot", "queued", "started", "step", "picture", "note", "done", "failed", "cancelled"]


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """What a client asks for.

    model    a name that the engine offers
    request  what to draw; source, mask and control pictures come with their pixels
    owner    the id of an API key, "" without keys; others do not see the job
    live     a token of drawing while typing: the job cancels older unfinished ones of the same owner and token
    attempts how often it was begun before, elsewhere, and its process ended; above 0 it is drawn alone
    """

    model: str
    request: ImageRequest
    owner: str = ""
    live: str | None = None
    attempts: int = 0


@dataclass(frozen=True, kw_only=True)
class JobPicture:
    """A finished picture of a job. index: its number of the count, from 0. width, height: in pixels."""

    id: str
    index: int
    seed: int
    width: int
    height: int


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job at one moment.

    id        32 hexadecimal digits, random
    request   with every field filled; files by name and hash, without their content
    created, started, finished   seconds since the epoch
    step, total   solver steps made, and to make, of all pictures together
    position  in the queue, 0 is next; None unless queued
    eta       seconds until it is done, from measured step times; None if nothing was measured yet, or it is finished
    error     why it failed, one sentence
    attempts  how often it was begun; more than 1 after a crash
    notes     sentences about it, such as on words that its model does not know
    """

    id: str
    model: str
    request: ImageRequest
    owner: str = ""
    live: str | None = None
    state: JobState = "queued"
    created: float
    started: float | None = None
    finished: float | None = None
    step: int = 0
    total: int
    position: int | None = None
    eta: float | None = None
    pictures: tuple[JobPicture, ...] = ()
    error: str | None = None
    attempts: int = 0
    notes: tuple[str, ...] = ()

    @property
    def is_finished(self) -> bool:
        """Whether it is done, failed or cancelled."""
        return self.state in FINISHED

    @property
    def steps(self) -> int:
        """Solver steps of each picture; 0 if the source is only copied."""
        return self.total // self.request.count


@dataclass(frozen=True, kw_only=True)
class JobEvent:
    """Something that happened to a job, and the job right after it.

    kind: "snapshot" is the first of a subscription, "queued" tells of a new position, "done", "failed" and "cancelled"
    are last. preview: a small JPEG of the picture that is being drawn, at "step", for subscribers that asked for it.
    picture: at "picture" the finished one, at "step" None. message: of a "note", or why it failed.
    """

    kind: EventKind
    job: Job
    preview: bytes | None = field(default=None, repr=False)
    picture: JobPicture | None = None
    message: str | None = None

    @property
    def is_last(self) -> bool:
        """Whether nothing follows."""
        return self.kind in FINISHED


def ending(job: Job) -> JobEvent:
    """Return the last event of a finished job."""
    kinds: dict[JobState, EventKind] = {"done": "done", "failed": "failed", "cancelled": "cancelled"}
    return JobEvent(kind=kinds[job.state], job=job, message=job.error)
