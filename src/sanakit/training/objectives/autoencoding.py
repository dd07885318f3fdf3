"""Losses of an autoencoder and its critic: pixels, structure, patches that look real, and the size of the latent."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sanakit.autoencoder import DCAE
from sanakit.base.errors import ConfigError
from sanakit.data import PictureBatch
from sanakit.training.config import TrainConfig
from sanakit.training.objectives.adversarial import (
    PatchDiscriminator,
    adaptive_weight,
    hinge_discriminator,
    hinge_generator,
    last_layer,
)
from sanakit.training.objectives.autoencoder_loss import REGULARISATIONS
from sanakit.training.objectives.perceptual import Perceptual
from sanakit.training.parallel import World
from sanakit.training.players import Player, make_player


class AutoencoderPair(nn.Module):
    """An autoencoder, and the critic of its pictures if there is one; their names are those of a checkpoint."""

    def __init__(self, autoencoder: DCAE, critic: PatchDiscriminator | None = None) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.critic = critic


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """latent [B, C, h, w] and the pixels [B, 3, H, W] that became of it."""

    latent: Tensor
    pixels: Tensor


class Autoencoding:
    """The losses of an autoencoder and its critic; see `Objective`. Pictures are [B, 3, H, W] in -1..1.

    A step is `reconstruct`, then `generator_loss` for the autoencoder and, if the critic plays, `critic_loss` of the
    same reconstruction for the critic. Of several processes each has its part of the batch; the critic's batch norms
    and the latent's regularisation see that part alone.
    """

    def __init__(
        self, config: TrainConfig, pair: AutoencoderPair, perceptual: Perceptual, world: World | None = None
    ) -> None:
        self.config, self.weights = config, config.autoencoder.loss
        self.network: nn.Module = pair
        self.model, self.critic = pair.autoencoder, pair.critic
        self.perceptual, self.world = perceptual, world or World()

    def players(self) -> tuple[Player, ...]:
        """Return the autoencoder, and the critic with an optimiser of its own and without an average."""
        first = make_player(self.model, self.config, name="autoencoder")
        if self.critic is None:
            return (first,)
        critic = make_player(
            self.critic, self.config, name="critic", loss="critic_loss", average=False,
            optimizer=self.config.autoencoder.critic,
        )  # fmt: skip
        return first, critic

    def draw(self, batch: PictureBatch) -> PictureBatch:
        """Nothing: the latent's noise is as large as the latent, which is not known before it is computed."""
        return batch

    def losses(self, batch: PictureBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """`loss` of the autoencoder with its parts; once the critic plays, `critic_loss` with its mean scores."""
        pixels = to_range(batch.pixels).to(next(self.network.parameters()).device)
        made = self.reconstruct(pixels, generator)
        parts = self.generator_loss(pixels, batch.step, made)
        return parts | self.critic_loss(pixels, made) if self.plays(batch.step) else parts

    def plays(self, step: int) -> bool:
        """Return whether the critic takes part in a step."""
        return self.critic is not None and step >= self.weights.adversarial_start

    def reconstruct(self, pixels: Tensor, generator: torch.Generator | None = None) -> Reconstruction:
        """Return the round trip; `generator`, of the CPU, draws the latent's noise."""
        latent = self.model.encode(pixels)
        noisy = latent
        if self.weights.latent_noise:
            noisy = latent + self.weights.latent_noise * self._noise(latent, generator)
        return Reconstruction(latent, self.model.decode(noisy))

    def _noise(self, latent: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return this process's part of the noise for the batch of all, like the latent."""
        every = len(latent) * self.world.size
        noise = torch.randn((every, *latent.shape[1:]), generator=generator, device="cpu")
        return noise[self.world.share(every)].to(latent.device, latent.dtype)

    def generator_loss(
        self, pixels: Tensor, step: int, made: Reconstruction | None = None
    ) -> dict[str, Tensor]:
        """Named losses of the autoencoder; "loss" is minimised, the rest has no gradient."""
        made = self.reconstruct(pixels) if made is None else made
        weights = self.weights
        error = made.pixels.float() - pixels.float()
        pixel, structure = error.abs().mean(), self.perceptual.loss(made.pixels, pixels)
        latent = REGULARISATIONS[weights.regularisation](made.latent)
        loss = weights.pixel * pixel + weights.perceptual * structure
        parts = {"pixel": pixel, "perceptual": structure, "latent": latent}
        if self.plays(step):
            parts |= self._adversarial(loss, made)
            loss = loss + weights.adversarial * parts["adversarial_weight"] * parts["adversarial"]
        parts["psnr"] = -10 * torch.log10(error.square().mean() / 4)  # the range -1..1 spans 2
        return {"loss": loss + weights.latent * latent} | {k: part.detach() for k, part in parts.items()}

    def _adversarial(self, reconstruction: Tensor, made: Reconstruction) -> dict[str, Tensor]:
        """Return the patches' adversarial loss, with gradients for the autoencoder alone, and its adaptive weight."""
        critic = self._critic()
        critic.requires_grad_(False)
        adversarial = hinge_generator(critic(made.pixels))
        critic.requires_grad_(True)
        weight = adaptive_weight(reconstruction, adversarial, last_layer(self.model), self.world.mean)
        return {"adversarial": adversarial, "adversarial_weight": weight}

    def critic_loss(self, pixels: Tensor, made: Reconstruction) -> dict[str, Tensor]:
        """`critic_loss`, with gradients for the critic alone, and the mean scores of real and fake patches.

        Raises ConfigError if there is no critic.
        """
        critic = self._critic()
        real, fake = critic(pixels), critic(made.pixels.detach())
        return {
            "critic_loss": hinge_discriminator(real, fake),
            "real": real.detach().float().mean(),
            "fake": fake.detach().float().mean(),
        }

    def _critic(self) -> PatchDiscriminator:
        if self.critic is None:
            raise ConfigError("autoencoder: this phase has no critic")
        return self.critic


def to_range(pictures: Tensor) -> Tensor:
    """uint8 [B, 3, H, W] -> float32 in -1..1, channels last."""
    return (pictures.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
