"""What an engine and replicas that draw for it elsewhere say to each other: a task there, a stream of news back.

Everything here is a plain value that any two processes can exchange.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Literal, Protocol

from sanakit.pipeline.request import ImageRequest

NewsKind = Literal["started", "step", "note", "picture", "failed"]
COUNTED = ("forwards", "forward_seconds", "rows", "prompt_hits", "prompt_misses")
"""Counters of `EngineStats` that replicas report, since only they know them."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One picture to draw.

    job: its id where it was accepted. request: as it is stored, and inputs with their pixels. attempts: see `JobSpec`.
    watched: whether somebody watches its previews now; `Replicas.watch` tells of changes.
    """

    job: str
    model: str
    request: ImageRequest
    attempts: int = 0
    watched: bool = False


@dataclass(frozen=True, kw_only=True)
class News:
    """What happened to a picture.

    step      solver steps made so far, at "step"
    preview   a small JPEG at "step" of a job that is watched
    message   of a "note", or why it "failed"
    png       the "picture" with its record; seed, width, height: its own
    counted   counter -> its growth on the replica since it was last told, with the last news of a picture
    """

    kind: NewsKind
    step: int = 0
    preview: bytes | None = field(default=None, repr=False)
    message: str = ""
    png: bytes = field(default=b"", repr=False)
    seed: int = 0
    width: int = 0
    height: int = 0
    counted: Mapping[str, float] = field(default_factory=dict)


class ReplicaLostError(Exception):
    """The replica that drew a picture has ended. Another one may draw it."""


class Stream(Protocol):
    """The news of one picture, which end with "picture" or "failed". Iterating raises ReplicaLostError."""

    def __iter__(self) -> Iterator[News]:
        """Wait for what happens."""

    def cancel(self) -> object:
        """Have the replica drop the picture at its next step; the iteration ends, somehow."""


class Replicas(Protocol):
    """Processes that draw."""

    @property
    def places(self) -> int:
        """Pictures that all of them together draw at once, at most."""

    def draw(self, task: Task) -> Stream:
        """Give a picture to one of them, or let it wait for one."""

    def watch(self, jobs: Set[str]) -> object:
        """Tell all of them which jobs have previews to be made for; of those that are drawn, all others have none.

        Waits until they have heard it.
        """
