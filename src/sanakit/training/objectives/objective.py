"""What training minimises, as the trainer and the tasks see it.

An objective turns a batch of data into losses. It draws its own times and noise (a consistency model wants others than
rectified flow), and brings its own players: the task's network, and whatever plays against it (a critic). Each task has
a table of its objectives; `TrainConfig.objective` names the row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from sanakit.base.errors import ConfigError
from sanakit.training.players import Player


class Objective(Protocol):
    """Times, noise, losses and players of a run.

    Attributes:
        network: every tensor that a checkpoint keeps: the task's network and the objective's own, under fixed names.
    """

    network: nn.Module

    def players(self) -> tuple[Player, ...]:
        """Who learns. Call it after the network was wrapped and sharded: optimisers hold on to parameters."""

    def draw(self, batch: Any) -> Any:
        """Add everything random to a batch, from its own seeds. Called by the threads that read ahead."""

    def losses(self, batch: Any, generator: torch.Generator) -> dict[str, Tensor]:
        """Named scalars of a micro-batch, among them what each player minimises.

        A player whose loss is left out waits this step. Losses of several players are summed before the backward pass:
        none may have a gradient for the parameters of another player. All that is not minimised is detached.
        """


@runtime_checkable
class Measurable(Objective, Protocol):
    """An objective of the transformer that validation can measure at given times."""

    def errors(self, batch: Any) -> Tensor:
        """Return the error of every sample, [B] float32, without gradients."""


def choose_objective(objectives: Sequence[str], wanted: str | None) -> str:
    """Return the name of the wanted objective among those of a task; the first by default. Raises ConfigError."""
    if wanted is None:
        return objectives[0]
    if wanted not in objectives:
        raise ConfigError(f"objective: {wanted!r} is not one of this task's; it has {', '.join(objectives)}")
    return wanted
