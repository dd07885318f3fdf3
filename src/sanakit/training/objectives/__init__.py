"""Losses: velocities of a flow, reconstruction and structure of pictures, a critic; and the objectives made of them.

velocity, perceptual, adversarial, autoencoder_loss     functions of tensors, exported here
flow_matching, autoencoding                             objectives: draws, losses and players of a run
"""

from sanakit.training.objectives.adversarial import (
    PatchDiscriminator,
    adaptive_weight,
    hinge_discriminator,
    hinge_generator,
    last_layer,
)
from sanakit.training.objectives.autoencoder_loss import AutoencoderLoss, log_power, moment_kl
from sanakit.training.objectives.perceptual import (
    LPIPS_FILES,
    Perceptual,
    choose_perceptual,
    lpips_missing,
    multiscale_edges,
    reconstruction,
)
from sanakit.training.objectives.velocity import loss_by_time, sample_errors, time_weights, velocity

__all__ = [
    "LPIPS_FILES",
    "AutoencoderLoss",
    "PatchDiscriminator",
    "Perceptual",
    "adaptive_weight",
    "choose_perceptual",
    "hinge_discriminator",
    "hinge_generator",
    "last_layer",
    "log_power",
    "loss_by_time",
    "lpips_missing",
    "moment_kl",
    "multiscale_edges",
    "reconstruction",
    "sample_errors",
    "time_weights",
    "velocity",
]
