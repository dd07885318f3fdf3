"""Flow matching: a transformer predicts the velocity of noisy latents, given text (arXiv 2410.10629, equation 1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace

import torch
from torch import Tensor, nn

from sanakit.flow import ShiftedTimes, draw_times
from sanakit.flow.path import LinearPath
from sanakit.training.config import TrainConfig
from sanakit.training.objectives.velocity import sample_errors, time_weights, velocity
from sanakit.training.players import Player, make_player
from sanakit.training.sections import RunPhase
from sanakit.training.tasks.joint_text import JointNetwork, scale_rate, transformer_of
from sanakit.training.tasks.latents import LatentBatch, NoisyBatch
from sanakit.transformer import SanaTransformer, TransformerConfig

_CLOCK = 1000  # the published networks read times in 0..1000; without dense time whole numbers in training

DrawTimes = Callable[[int, torch.Generator], Tensor]
"""(n, generator) -> n times in 0..1."""


class FlowMatching:
    """The mean squared error of the velocity, at times of the config's density; see `Objective`.

    network: a transformer, or one with its text encoder. ratio: pixels per latent position. shift: of the base model.

    Attributes:
        predictor: what predicts velocities: the network, unless a part of it is all that learns.
    """

    def __init__(
        self, config: TrainConfig, network: SanaTransformer | JointNetwork, ratio: int, shift: float
    ) -> None:
        self.config, self.ratio, self.shift = config, ratio, shift
        self.network: nn.Module = network
        self.predictor: nn.Module = network
        self.transformer = transformer_of(network)
        self.path = LinearPath()

    def players(self) -> tuple[Player, ...]:
        """One; a text encoder that is trained may have a learning rate of its own."""
        player = make_player(self.network, self.config)
        rate, usual = self.config.text.lr, self.config.optimizer.lr
        if isinstance(self.network, JointNetwork) and rate is not None:
            encoder = self.network.text_encoder.parameters()
            scale_rate(player.optimizer, encoder, rate / usual if usual else 0.0)
        return (player,)

    def draw(self, batch: LatentBatch) -> NoisyBatch:
        """Return a time and noise for every sample, each from the sample's own seed."""
        phase, times = self.config.phases[batch.phase], self.config.times
        shifted = ShiftedTimes(phase.shift or self.shift)
        t, noise = draw(
            batch.seeds, tuple(batch.x0.shape[1:]),
            lambda count, generator: draw_times(count, generator, shifted, times.density, times.levels),
        )  # fmt: skip
        known = {field.name: getattr(batch, field.name) for field in fields(LatentBatch)}
        return NoisyBatch(**known, noise=noise, t=t)

    def losses(self, batch: NoisyBatch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """`loss`, weighted by time if the config says so; then `flow` is the same without weights."""
        return self.compared(*self.predict(batch), batch.t)

    def compared(self, predicted: Tensor, target: Tensor, t: Tensor) -> dict[str, Tensor]:
        """As `losses`, of velocities [B, C, h, w] at times t [B]."""
        weighting = self.config.times.weighting
        weights = None if weighting == "none" else time_weights(weighting, t.to(target.device))
        parts = velocity(predicted, target, weights)
        return parts if weights is None else parts | {"flow": velocity(predicted, target)["loss"].detach()}

    @torch.no_grad()
    def errors(self, batch: NoisyBatch) -> Tensor:
        """Return the squared error of every sample, [B] float32."""
        return sample_errors(*self.predict(batch))

    def predict(self, batch: NoisyBatch) -> tuple[Tensor, Tensor]:
        """Predicted and true velocities, [B, C, h, w] each."""
        phase = self.config.phases[batch.phase]
        positions = phase_config(self.transformer.config, phase, self.ratio).positions
        batch = batch.to(next(self.predictor.parameters()).device)
        point = self.path.point(batch.x0, batch.noise, batch.t)
        time = model_time(self.transformer.config, batch.t)
        predicted = self.predictor(point, time, batch.text, positions=positions)
        return predicted, self.path.target(batch.x0, batch.noise, batch.t)


def model_time(config: TransformerConfig, t: Tensor) -> Tensor:
    """Return times [B] that a network reads at noise levels t [B]: whole ones, as published, or all of a dense one."""
    return (_CLOCK * t).floor() if config.time_scale == 1 else _CLOCK * t


def phase_config(config: TransformerConfig, phase: RunPhase, ratio: int) -> TransformerConfig:
    """Return the configuration of a network as it is trained in a phase; `ratio`: pixels per latent position."""
    scale = config.position_scale if phase.position_scale is None else phase.position_scale
    return replace(config, sample_size=phase.size // ratio, position_scale=scale)


def draw(seeds: Sequence[int], shape: tuple[int, ...], times: DrawTimes) -> tuple[Tensor, Tensor]:
    """One time and noise per seed: [B] and [B, *shape], float32 on the CPU."""
    t, noise = [], []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        t.append(times(1, generator))
        noise.append(torch.randn(shape, generator=generator))
    return torch.cat(t), torch.stack(noise)
