"""Flow matching of adapters beside a frozen model, with or without pictures of the subject's class beside the batch.

DreamBooth's loss (arXiv 2208.12242, equation 2) is that of the subject, plus a weight times that of pictures which the
model drew of the class before training. What those teach is their own velocity, or what the frozen model says of them:
then nothing but its answers is learnt there, and least is forgotten (learning without forgetting, arXiv 1606.09282).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sanakit.adapt.lora import adapters_disabled
from sanakit.training.config import TrainConfig
from sanakit.training.objectives.flow_matching import FlowMatching
from sanakit.training.players import Player, make_player
from sanakit.training.tasks.latents import LatentBatch, NoisyBatch
from sanakit.transformer import SanaTransformer


@dataclass(frozen=True, eq=False, kw_only=True)
class ClassBatch(LatentBatch):
    """A batch of the subject, and one of its class."""

    prior: LatentBatch


@dataclass(frozen=True, eq=False, kw_only=True)
class NoisyClassBatch(NoisyBatch):
    """The same with times and noise."""

    prior: NoisyBatch


class AdapterMatching(FlowMatching):
    """See `FlowMatching`. adapters: what learns, in a module `trained`, beside the layers of `transformer`."""

    def __init__(
        self, config: TrainConfig, adapters: nn.Module, transformer: SanaTransformer, ratio: int, shift: float
    ) -> None:
        super().__init__(config, transformer, ratio, shift)
        self.network = adapters
        self.prior = config.lora.prior

    def players(self) -> tuple[Player, ...]:
        """One: the adapters that learn."""
        return (make_player(self.network.get_submodule("trained"), self.config),)

    def draw(self, batch: LatentBatch) -> NoisyBatch:
        """As `FlowMatching.draw`, for both parts of a batch."""
        drawn = super().draw(batch)
        if not isinstance(batch, ClassBatch):
            return drawn
        return NoisyClassBatch(**vars(drawn), prior=super().draw(batch.prior))

    def losses(self, batch: NoisyBatch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """As `FlowMatching.losses`; with class pictures `instance` and `prior` are the parts of the sum."""
        own = super().losses(batch, generator)
        if not isinstance(batch, NoisyClassBatch):
            return own
        other = self._prior_loss(batch.prior)
        parts = {"instance": own["loss"].detach(), "prior": other.detach()}
        return own | parts | {"loss": own["loss"] + self.prior.weight * other}

    def _prior_loss(self, batch: NoisyBatch) -> Tensor:
        """The loss of class pictures, against their own velocity or the frozen model's."""
        predicted, target = self.predict(batch)
        if self.prior.target == "base":
            with torch.no_grad(), adapters_disabled(self.transformer):
                target = self.predict(batch)[0]
        return self.compared(predicted, target, batch.t)["loss"]
