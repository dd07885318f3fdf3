"""The task of training an autoencoder: give pictures back, and in its last phase so that a critic takes them for real.

Autoencoder and critic are one module with one optimiser: the critic's loss has no gradient for the autoencoder and the
autoencoder's none for the critic, so a step moves both.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sanakit.autoencoder import DCAE
from sanakit.data import PictureBatch
from sanakit.training.objectives.adversarial import PatchDiscriminator
from sanakit.training.objectives.autoencoder import AutoencoderLoss, AutoencoderObjective
from sanakit.training.objectives.perceptual import Perceptual
from sanakit.training.objectives.phases import DCAE_PHASES, Phase, trained_parameters
from sanakit.training.parallel import World

PHASES = {phase.name: phase for phase in DCAE_PHASES}


class AutoencoderPair(nn.Module):
    """An autoencoder, and a critic of its pictures where the phase has one; the phase's parameters are trained."""

    def __init__(self, autoencoder: DCAE, phase: Phase) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.critic = PatchDiscriminator() if phase.gan else None
        trained_parameters(autoencoder, phase)


class AutoencoderTask:
    """The loss of a phase. Its parts are told by name; `critic_loss` is that of the critic."""

    def __init__(
        self,
        pair: AutoencoderPair,
        phase: Phase,
        weights: AutoencoderLoss,
        perceptual: Perceptual,
        world: World | None = None,
    ) -> None:
        self.pair = pair
        self.objective = AutoencoderObjective(
            pair.autoencoder, phase, weights, perceptual, pair.critic, world
        )

    def loss(self, batch: PictureBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """The loss of both, and its parts. The latent's noise is drawn from `generator`."""
        objective, step = self.objective, batch.step
        pixels = to_range(batch.pixels).to(next(self.pair.parameters()).device)
        made = objective.reconstruct(pixels, generator)
        parts = objective.generator_loss(pixels, step, made)
        if not objective.plays(step):
            return parts
        critic = objective.discriminator_loss(pixels, step, made)
        told = {"critic_loss": critic["loss"].detach(), "real": critic["real"], "fake": critic["fake"]}
        return parts | told | {"loss": parts["loss"] + critic["loss"]}


def to_range(pictures: Tensor) -> Tensor:
    """uint8 [B, 3, H, W] -> float32 in -1..1, channels last."""
    return (pictures.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
