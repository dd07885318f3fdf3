"""What a session trains: a task brings the network, its batches and its objective, and writes the finished model.

transformer   on latents and text states of a frozen base model, alone or with its text encoder
lora          the same, adapters beside its frozen layers alone
control       the same, a ControlNet beside the frozen network alone
teacher       the same, for a base model that gets dense time and qk-norm first
sprint        the same, distilled into a model of few steps
autoencoder   on pictures
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

from sanakit.data import PictureSet
from sanakit.training.events import Event
from sanakit.training.objectives.objective import Objective
from sanakit.training.tasks.training_set import Epoch
from sanakit.training.trainer import Batches, Hook, Trainer


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The size of a task, counted before anything is loaded.

    Attributes:
        network: its name. parameters: how many. trained: how many of them.
        operations: of a step, over all processes; a multiplication and a sum are two.
        activations: bytes kept for the backward pass, per process, in float32.
        words: tokens that captions are padded to; 0 if none are read.
        cached, wanted: latents that are there, of those needed; both 0 if none are used.
        unknown: of those that are not counted as there, how many may be.
        followed, follows: trajectories of the teacher that are there, of those needed; both 0 if none are stored.
        cache_operations, cache_bytes: what it takes to make what is not there, and to keep it.
        encoders, drawing: bytes of the networks that fill the cache, and of those that draw a preview.
        frozen: bytes of the networks that a step asks and does not train.
        unaveraged: parameters of which no average is kept.
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
    followed: int = 0
    follows: int = 0
    cache_operations: float = 0.0
    cache_bytes: int = 0
    encoders: int = 0
    drawing: int = 0
    frozen: int = 0
    unaveraged: int = 0


class Task(Protocol):
    """What is trained. Constructing one reads configurations and the set, and loads no weights.

    base_weights: a fingerprint of the base model's; "" if the task has none.
    """

    pictures: PictureSet
    base_weights: str

    def workload(self) -> Workload:
        """Count what the task will take."""

    def epochs(self) -> tuple[Epoch, ...]:
        """Return one per phase, if every picture is readable. Raises ConfigError if a phase fills no batch."""

    def operations(self) -> Callable[[Any], float]:
        """Return a function that counts a micro-batch of `batches`, its backward pass included."""

    def remarks(self) -> Iterable[tuple[str, str]]:
        """Give (name, sentence) of what else the plan should say; may load small networks."""

    def product(self) -> float:
        """Count one usual matrix product of a micro-batch, by which the threads of a CPU are chosen."""

    def prepare(self) -> Iterator[Event]:
        """Make what has to be there before the first step; every process does its share."""

    def objective(self) -> Objective:
        """Build the network with its first weights, and what is minimised."""

    def blocks(self, network: nn.Module) -> nn.ModuleList:
        """Return the blocks that are gathered, compiled or recomputed one by one; none keeps the network whole."""

    def parts(self, network: nn.Module) -> Sequence[nn.Module]:
        """Return what else is gathered as a whole, the inner parts first."""

    def batches(self, objective: Objective) -> AbstractContextManager[Batches]:
        """Open the micro-batches by number, read ahead and drawn by the objective."""

    def hooks(self, objective: Objective) -> list[Hook]:
        """Return what is done now and then."""

    def export(self, objective: Objective, trainer: Trainer) -> str:
        """Write the finished model and say where it is. Every process calls it, the first one writes."""
