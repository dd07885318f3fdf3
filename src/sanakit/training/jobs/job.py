"""The seam between a session, which runs, and what it trains."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

from sanakit.data import PictureSet
from sanakit.data.buckets import Bucket
from sanakit.training.loop import Batches, Chore, Loss, Run
from sanakit.training.report import Event


@dataclass(frozen=True, kw_only=True)
class Size:
    """What a job will take, counted before anything is loaded.

    Attributes:
        network: its name. parameters: how many. trained: how many of them.
        operations: of a step, over all processes; a multiplication and a sum are two.
        activations: bytes kept for the backward pass, per process, in float32.
        words: tokens that captions are padded to; 0 where none are read.
        cached, wanted: latents that are there, of those needed; both 0 where none are used.
        unknown: of those that are not counted as there, how many may be.
        cache_operations, cache_bytes: what it takes to make what is not there, and to keep it.
        encoders, drawing: bytes of the networks that fill the cache, and of those that draw a preview.
    """

    network: str
    parameters: int
    trained: int
    operations: float
    activations: int
    words: int = 0
    cached: int = 0
    wanted: int = 0
    unknown: int = 0
    cache_operations: float = 0.0
    cache_bytes: int = 0
    encoders: int = 0
    drawing: int = 0


@dataclass(frozen=True, kw_only=True)
class Visit:
    """How a phase of a run walks over its set.

    Attributes:
        steps: of an epoch.
        usable: pictures that may be trained on. never: of them, those that no epoch visits.
        buckets: (height, width) -> usable pictures.
    """

    steps: int
    usable: int
    never: int
    buckets: Mapping[Bucket, int]


class Job(Protocol):
    """What is trained. Constructing one reads configurations and the set, and loads no weights."""

    pictures: PictureSet

    def size(self) -> Size:
        """What it will take."""

    def visits(self) -> tuple[Visit, ...]:
        """How each phase walks over the set, every picture readable. Raises ConfigError where one fills no batch."""

    def operations(self) -> Callable[[Any], float]:
        """Of a micro-batch, as `batches` gives it, with its backward pass; a multiplication and a sum are two."""

    def remarks(self) -> Iterable[tuple[str, str]]:
        """(name, sentence) of what the plan should say besides; may load small networks."""

    def product(self) -> float:
        """Operations of one usual product of a micro-batch, by which the threads of a CPU are chosen."""

    def prepare(self) -> Iterator[Event]:
        """What has to be there before the first step; every process does its share."""

    def build(self) -> nn.Module:
        """The module that holds every trained parameter, with its first weights."""

    def blocks(self, model: nn.Module) -> Sequence[nn.Module]:
        """What is gathered, compiled or recomputed piece by piece."""

    def loss(self, model: nn.Module) -> Loss:
        """The loss of the built, edited and spread network."""

    def batches(self) -> AbstractContextManager[Batches]:
        """Micro-batches by number, read ahead."""

    def chores(self, model: nn.Module) -> list[Chore]:
        """What is done now and then."""

    def export(self, model: nn.Module, run: Run) -> str:
        """Write the finished model; says where it is. Every process calls it, the first one writes."""
