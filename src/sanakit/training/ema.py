"""An exponential moving average of weights, kept in float32 beside the model and spread as the model is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sanakit.training.parallel import local, reshard, whole


class EMA:
    """Averaged weights: after step n, decay is min(decay, (1 + n) / (10 + n)), so that early steps do not linger."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights: dict[str, Tensor] = {
            name: p.detach().clone().float() for name, p in model.named_parameters()
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
        live = {name: p.detach().clone() for name, p in model.named_parameters()}
        self.copy_to(model)
        try:
            yield model
        finally:
            _assign(model, live)

    def gathered(self) -> dict[str, Tensor]:
        """All of the averaged weights, on the CPU of every process; to be called by all."""
        return {name: whole(weight).cpu() for name, weight in self.weights.items()}

    def copy_to(self, model: nn.Module) -> None:
        """Overwrite the model's weights by the averaged ones."""
        _assign(model, self.weights)


@torch.no_grad()
def _assign(model: nn.Module, weights: dict[str, Tensor]) -> None:
    reshard(model)
    for name, parameter in model.named_parameters():
        local(parameter).copy_(local(weights[name]))
