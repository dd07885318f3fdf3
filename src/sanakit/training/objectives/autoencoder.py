"""What training an autoencoder minimises, brought together: pixels, structure, patches that look real, the latent."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sanakit.autoencoder import DCAE
from sanakit.base.bounds import Count, Weight
from sanakit.base.errors import ConfigError
from sanakit.training.objectives.adversarial import (
    PatchDiscriminator,
    adaptive_weight,
    hinge_discriminator,
    hinge_generator,
)
from sanakit.training.objectives.perceptual import Perceptual
from sanakit.training.objectives.phases import Phase, last_layer
from sanakit.training.objectives.regularisation import REGULARISATIONS, RegularisationName
from sanakit.training.parallel import World


@dataclass(frozen=True, kw_only=True)
class AutoencoderLoss:
    """The weights of the parts. DC-AE's paper names its parts and not their weights; these are VQGAN's.

    Attributes:
        pixel: weight of the L1 error.
        perceptual: weight of LPIPS, or of what stands for it.
        adversarial: weight of the critic's hinge loss, on top of the adaptive weight.
        adversarial_start: the first step at which the discriminator learns and is listened to.
        latent: weight of the regularisation.
        regularisation: what keeps the latent small: its Kullback-Leibler divergence or its root mean square.
        latent_noise: standard deviation of noise on the latent, for a decoder that bears a flow's errors.
    """

    pixel: Weight = 1.0
    perceptual: Weight = 1.0
    adversarial: Weight = 0.8
    adversarial_start: Count = 0
    latent: Weight = 0.0
    regularisation: RegularisationName = "none"
    latent_noise: Weight = 0.0


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """latent [B, C, h, w] and what became of the pixels [B, 3, H, W] on the way through."""

    latent: Tensor
    pixels: Tensor


class AutoencoderObjective:
    """The losses of one phase. Pictures are [B, 3, H, W] in -1..1.

    A step is `reconstruct`, then `generator_loss` for the autoencoder's optimiser and, where `plays`,
    `discriminator_loss` of the same reconstruction for the discriminator's. Of several processes each has its part of
    the batch; the discriminator's batch norms and the latent's regularisation see that part alone.
    """

    def __init__(
        self,
        model: DCAE,
        phase: Phase,
        weights: AutoencoderLoss,
        perceptual: Perceptual,
        discriminator: PatchDiscriminator | None = None,
        world: World | None = None,
    ) -> None:
        if phase.gan and discriminator is None:
            raise ConfigError(f"autoencoder: phase {phase.name} has a GAN; hand in a discriminator.")
        self.model, self.phase, self.weights = model, phase, weights
        self.perceptual, self.discriminator = perceptual, discriminator
        self.world = world or World()

    def plays(self, step: int) -> bool:
        """Whether the discriminator takes part in a step."""
        return self.phase.gan and step >= self.weights.adversarial_start

    def reconstruct(self, pixels: Tensor, generator: torch.Generator | None = None) -> Reconstruction:
        """The round trip; `generator`, of the CPU, draws the latent's noise."""
        latent = self.model.encode(pixels)
        noisy = latent
        if self.weights.latent_noise:
            noisy = latent + self.weights.latent_noise * self._noise(latent, generator)
        return Reconstruction(latent, self.model.decode(noisy))

    def _noise(self, latent: Tensor, generator: torch.Generator | None) -> Tensor:
        """This process's part of the noise for the batch of all, like the latent."""
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
        """How real the patches look, with gradients for the autoencoder alone, and what that counts for."""
        assert self.discriminator is not None
        self.discriminator.requires_grad_(False)
        adversarial = hinge_generator(self.discriminator(made.pixels))
        self.discriminator.requires_grad_(True)
        weight = adaptive_weight(reconstruction, adversarial, last_layer(self.model), self.world.mean)
        return {"adversarial": adversarial, "adversarial_weight": weight}

    def discriminator_loss(
        self, pixels: Tensor, step: int, made: Reconstruction | None = None
    ) -> dict[str, Tensor]:
        """Named losses of the discriminator, with gradients for it alone. Raises ConfigError where it does not play."""
        if self.discriminator is None or not self.plays(step):
            raise ConfigError(
                f"autoencoder: the discriminator does not play at step {step} of phase {self.phase.name}."
            )
        with torch.no_grad():
            fake = (self.reconstruct(pixels) if made is None else made).pixels.detach()
        real_scores, fake_scores = self.discriminator(pixels), self.discriminator(fake)
        return {
            "loss": hinge_discriminator(real_scores, fake_scores),
            "real": real_scores.detach().float().mean(),
            "fake": fake_scores.detach().float().mean(),
        }
