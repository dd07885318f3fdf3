"""The seam between a session, which runs, and what it trains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from torch import nn

from sanakit.training.data import PictureSet
from sanakit.training.loop import Batches, Chore, Loss, Run
from sanakit.training.report import Notice


@dataclass(frozen=True, kw_only=True)
class Size:
    """What a job will take, counted before anything is loaded.

    Attributes:
        network: its name. parameters: how many.
        operations: of a step, over all processes; a multiplication and a sum are two.
        activations: bytes kept for the backward pass, per process.
        cached, wanted: latents that are there, of those needed; both 0 where none are used.
    """

    network: str
    parameters: int
    operations: float
    activations: int
    cached: int = 0
    wanted: int = 0


class Job(Protocol):
    """What is trained. Constructing one reads configurations and the set, and loads no weights."""

    pictures: PictureSet

    def size(self) -> Size:
        """What it will take."""

    def prepare(self) -> Iterator[Notice]:
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
