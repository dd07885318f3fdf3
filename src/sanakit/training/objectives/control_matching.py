"""Flow matching of a ControlNet: the frozen base predicts the velocity, steered by the control of each picture."""

from __future__ import annotations

import random
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from sanakit.training.config import TrainConfig
from sanakit.training.objectives.flow_matching import FlowMatching, model_time, phase_config
from sanakit.training.objectives.velocity import sample_errors
from sanakit.training.players import Player, make_player
from sanakit.training.tasks.latents import LatentBatch, NoisyBatch
from sanakit.transformer import ControlNet, SanaTransformer, placed


@dataclass(frozen=True, eq=False, kw_only=True)
class ControlBatch(LatentBatch):
    """A batch with its controls. control: latents [B, C, h, w] float32, scaled as x0."""

    control: Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class NoisyControlBatch(NoisyBatch):
    """A batch with times, noise and controls. seen: [B] bool, the samples that are trained with their control."""

    control: Tensor
    seen: Tensor

    def to(self, device: torch.device) -> NoisyControlBatch:
        """Return the same on a device."""
        names = ("x0", "noise", "t", "text", "control", "seen")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


class ControlMatching(FlowMatching):
    """As `FlowMatching`. network: the ControlNet, which alone learns. base: the frozen network that it steers."""

    def __init__(
        self, config: TrainConfig, network: ControlNet, base: SanaTransformer, ratio: int, shift: float
    ) -> None:
        super().__init__(config, base, ratio, shift)
        self.base, self.control = base, network.control
        self.network = network

    def players(self) -> tuple[Player, ...]:
        """One."""
        return (make_player(self.network, self.config),)

    def draw(self, batch: LatentBatch) -> NoisyControlBatch:
        """Return a time, noise, and whether it sees its control, for every sample, each from the sample's own seed."""
        assert isinstance(batch, ControlBatch)
        noisy, dropout = super().draw(batch), self.config.control.dropout
        seen = torch.tensor([random.Random(f"control {seed}").random() >= dropout for seed in batch.seeds])
        known = {field.name: getattr(noisy, field.name) for field in fields(NoisyBatch)}
        return NoisyControlBatch(**known, control=batch.control, seen=seen)

    @torch.no_grad()
    def errors(self, batch: NoisyBatch) -> Tensor:
        """Return the squared error of every sample with its control, [B] float32."""
        assert isinstance(batch, NoisyControlBatch)
        return sample_errors(*self.predict(replace(batch, seen=torch.ones_like(batch.seen))))

    def predict(self, batch: NoisyBatch) -> tuple[Tensor, Tensor]:
        """Predicted and true velocities, [B, C, h, w] each. A sample that does not see its control has one of zeros."""
        assert isinstance(batch, NoisyControlBatch)
        config, phase = self.base.config, self.config.phases[batch.phase]
        positions = phase_config(config, phase, self.ratio).positions
        batch = batch.to(next(self.base.parameters()).device)
        point = self.path.point(batch.x0, batch.noise, batch.t)
        time, control = model_time(config, batch.t), batch.control * batch.seen[:, None, None, None]
        residuals = self.network(point, time, batch.text, control, positions=positions)
        steering = placed(self.control, residuals)
        predicted = self.base(point, time, batch.text, positions=positions, residuals=steering)
        return predicted, self.path.target(batch.x0, batch.noise, batch.t)
