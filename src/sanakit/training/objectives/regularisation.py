"""What keeps the latent of a deterministic autoencoder near unit size, so that a flow from N(0, 1) has it near."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

RegularisationName = Literal["none", "kl", "rms"]
"""none: published for DC-AE, which divides by the measured size afterwards. kl, rms: see below."""


def moment_kl(latent: Tensor) -> Tensor:
    """KL of N(mean, var) from N(0, 1) in nats, of each channel over batch and positions, averaged: [B, C, h, w] -> [].

    (mean^2 + var - 1 - ln var) / 2, as for a variational autoencoder (arXiv 1312.6114, appendix B), but of the
    aggregate: a deterministic encoder has no variance of its own.
    """
    x = latent.float().transpose(0, 1).flatten(1)
    var, mean = torch.var_mean(x, dim=1, correction=0)
    return 0.5 * (mean.square() + var - 1 - var.clamp_min(1e-12).log()).mean()


def log_power(latent: Tensor) -> Tensor:
    """(ln of the mean square)^2: [B, C, h, w] -> []; zero at an RMS of 1, and nothing is asked of single channels."""
    return latent.float().square().mean().clamp_min(1e-12).log().square()


def no_regularisation(latent: Tensor) -> Tensor:
    """Zero."""
    return latent.new_zeros((), dtype=torch.float32)


REGULARISATIONS: dict[RegularisationName, Callable[[Tensor], Tensor]] = {
    "none": no_regularisation,
    "kl": moment_kl,
    "rms": log_power,
}
