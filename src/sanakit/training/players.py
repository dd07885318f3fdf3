"""Players: sets of parameters that learn side by side, each with its own optimiser, gradient limit and average.

A transformer is one player. An autoencoder with a critic is two: each is moved by its own loss, and clipped by its own
gradient, so that neither sets the pace of the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sanakit.base.precision import decide
from sanakit.training.config import TrainConfig
from sanakit.training.edits import named_weights
from sanakit.training.optim import build_optimizer, lr_for_batch
from sanakit.training.optim.settings import OptimizerConfig
from sanakit.training.parallel import local, reshard, whole


@dataclass(frozen=True, kw_only=True, eq=False)
class Player:
    """One side of a training game.

    Attributes:
        name: for reports and messages.
        module: the network, or a part of it, whose parameters it has.
        optimizer: over those that are trained.
        lr: learning rate at its height.
        loss: the name, among the losses of a step, of the one that it minimises.
        clip: largest norm of its gradient; None or 0 for no limit.
        ema: decay of its averaged weights; None keeps no average.
    """

    name: str
    module: nn.Module
    optimizer: torch.optim.Optimizer
    lr: float
    loss: str = "loss"
    clip: float | None = None
    ema: float | None = None

    def set_rate(self, factor: float) -> float:
        """Set the learning rate to `factor` of its height, and return it. Groups may have a scale of their own."""
        lr = self.lr * factor
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group.get("scale", 1.0)
        return lr

    def clip_gradient(self) -> float:
        """Clip the gradient, and return its norm before that, over all processes."""
        limit = self.clip or math.inf
        return float(whole(nn.utils.clip_grad_norm_(self.module.parameters(), limit)))


def make_player(
    module: nn.Module,
    config: TrainConfig,
    *,
    name: str = "model",
    optimizer: OptimizerConfig | None = None,
    loss: str = "loss",
    average: bool = True,
) -> Player:
    """Return a player as a config describes it. optimizer: None for that of the config.

    Raises ConfigError if nothing is trained or a library is missing.
    """
    settings = optimizer or config.optimizer
    dtype = decide(next(module.parameters()).device.type, config.dtype).dtype
    return Player(
        name=name, module=module, optimizer=build_optimizer(module, settings, dtype), loss=loss,
        lr=lr_for_batch(settings.lr, config.batch, config.schedule.rule),
        clip=config.clip, ema=config.ema if average else None,
    )  # fmt: skip


def joint_norm(norms: Sequence[float]) -> float:
    """Return the norm of the gradients of several players together."""
    return math.hypot(*norms)


class EMA:
    """Averaged weights, in float32 beside the model and sharded as it is.

    After step n the decay is min(decay, (1 + n) / (10 + n)), so that the first weights are soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights: dict[str, Tensor] = {
            name: p.detach().clone().float() for name, p in named_weights(model)
        }

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move the average towards the model's weights after optimiser step `step` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        live = [local(p.detach()).float() for p in model.parameters()]
        torch._foreach_lerp_([local(weight) for weight in self.weights.values()], live, 1 - decay)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[nn.Module]:
        """Run the model with the averaged weights; the live ones come back afterwards."""
        reshard(model)
        live = {name: p.detach().clone() for name, p in named_weights(model)}
        self.copy_to(model)
        try:
            yield model
        finally:
            _assign(model, live)

    def gathered(self) -> dict[str, Tensor]:
        """Return all of the averaged weights, on the CPU of every process; to be called by all."""
        return {name: whole(weight).cpu() for name, weight in self.weights.items()}

    def copy_to(self, model: nn.Module) -> None:
        """Overwrite the model's weights by the averaged ones."""
        _assign(model, self.weights)


@torch.no_grad()
def _assign(model: nn.Module, weights: dict[str, Tensor]) -> None:
    reshard(model)
    for name, parameter in named_weights(model):
        local(parameter).copy_(local(weights[name]))
