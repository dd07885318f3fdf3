"""The weights of an autoencoder's losses, and the regularisation of its latent.

It keeps the latent of a deterministic autoencoder near unit size, as a flow that starts from N(0, 1) wants it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sanakit.base.bounds import Count, Weight

RegularisationName = Literal["none", "kl", "rms"]
"""none: published for DC-AE, which divides by the measured size afterwards. kl, rms: see below."""


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


def moment_kl(latent: Tensor) -> Tensor:
    """KL of N(mean, var) from N(0, 1) in nats, of each channel over batch and positions, averaged: [B, C, h, w] -> [].

    (mean^2 + var - 1 - ln var) / 2, as for a variational autoencoder (arXiv 1312.6114, appendix B), but of the
    aggregate: a deterministic encoder has no variance of its own.
    """
    x = latent.float().transpose(0, 1).flatten(1)
    var, mean = torch.var_mean(x, dim=1, correction=0)
    return 0.5 * (mean.square() + var - 1 - var.clamp_min(1e-12).log()).mean()


def log_power(latent: Tensor) -> Tensor:
    """(ln of the mean square)^2: [B, C, h, w] -> []; zero at an RMS of 1, whatever single channels do."""
    return latent.float().square().mean().clamp_min(1e-12).log().square()


def no_regularisation(latent: Tensor) -> Tensor:
    """Return zero: the latent is left as it is."""
    return latent.new_zeros((), dtype=torch.float32)


REGULARISATIONS: dict[RegularisationName, Callable[[Tensor], Tensor]] = {
    "none": no_regularisation,
    "kl": moment_kl,
    "rms": log_power,
}
