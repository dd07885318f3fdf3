"""The task of training a transformer: predict the velocity of noisy latents, given text (arXiv 2410.10629, eq. 1).

The autoencoder of the base model is frozen, and so is its text encoder unless it is trained, too (`joint.py`); what
frozen networks make of the set lies in the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from sanakit.base.errors import ConfigError
from sanakit.flow.path import LinearPath
from sanakit.training.config import ModelConfig, RunPhase, TrainConfig
from sanakit.training.objectives.velocity import sample_errors, velocity
from sanakit.training.objectives.weighting import time_weights
from sanakit.training.schema import typed_values
from sanakit.training.tasks.joint import JointNetwork, transformer_of
from sanakit.training.tasks.latents import LatentBatch
from sanakit.transformer import PRESETS, SanaTransformer, TransformerConfig, initialise
from sanakit.weights import ModelSpec, load_transformer

_CLOCK = 1000


class TransformerTask:
    """The network under training, and its loss.

    ratio: pixels per latent position: the positional table follows the size of a phase.
    """

    def __init__(self, config: TrainConfig, model: SanaTransformer | JointNetwork, ratio: int) -> None:
        self.config, self.model, self.ratio = config, model, ratio
        self.transformer = transformer_of(model)
        self.path = LinearPath()

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """What is gathered, compiled or recomputed piece by piece."""
        return list(self.transformer.blocks)

    def loss(self, batch: LatentBatch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The weighted velocity error of a batch; `flow` is the same without weights."""
        predicted, target = self.predict(batch)
        weighting = self.config.times.weighting
        weights = None if weighting == "none" else time_weights(weighting, batch.t.to(target.device))
        parts = velocity(predicted, target, weights)
        return parts if weights is None else parts | {"flow": velocity(predicted, target)["loss"].detach()}

    @torch.no_grad()
    def errors(self, batch: LatentBatch) -> Tensor:
        """The squared error of every sample, [B] float32."""
        return sample_errors(*self.predict(batch))

    def predict(self, batch: LatentBatch) -> tuple[Tensor, Tensor]:
        """Predicted and true velocities, [B, C, h, w] each."""
        phase = self.config.phases[batch.phase]
        positions = phase_config(self.transformer.config, phase, self.ratio).positions
        batch = batch.to(next(self.model.parameters()).device)
        point = self.path.point(batch.x0, batch.noise, batch.t)
        predicted = self.model(point, (_CLOCK * batch.t).floor(), batch.text, positions=positions)
        return predicted, self.path.target(batch.x0, batch.noise, batch.t)


def phase_config(config: TransformerConfig, phase: RunPhase, ratio: int) -> TransformerConfig:
    """The configuration of a network as it is trained in a phase; `ratio`: pixels per latent position."""
    scale = config.position_scale if phase.position_scale is None else phase.position_scale
    return replace(config, sample_size=phase.size // ratio, position_scale=scale)


def network_config(wanted: ModelConfig, spec: ModelSpec) -> TransformerConfig:
    """The shape of the network. Raises ConfigError for unknown names and for what does not fit the base model."""
    if wanted.start == "base" and (wanted.preset or wanted.changes):
        raise ConfigError(
            "model: weights of the base model have its shape; for another one say model.start=scratch"
        )
    if wanted.preset is not None and wanted.preset not in PRESETS:
        raise ConfigError(f"model.preset: {wanted.preset!r} is none of {', '.join(PRESETS)}")
    base = spec.transformer
    start = base if wanted.preset is None else PRESETS[wanted.preset]
    fitting = replace(start, text_width=base.text_width, latent_channels=base.latent_channels)
    return replace(fitting, **typed_values(TransformerConfig, wanted.changes, "model.changes."))


def build_network(config: TrainConfig, spec: ModelSpec, device: torch.device) -> SanaTransformer:
    """The network with its first weights, float32. Raises ConfigError or WeightsError."""
    shape = network_config(config.model, spec)
    if config.model.start == "scratch":
        torch.manual_seed(config.seed)
        return initialise(SanaTransformer(shape)).to(device)
    with torch.device("meta"):
        model = SanaTransformer(shape)
    source, part = spec.transformer_source, spec.weights
    load_transformer(model, shape, source, dtype=torch.float32, device=device, part=part)
    return model.requires_grad_(True)
