"""What training minimises: velocity for the flow; reconstruction, structure and patches for the autoencoder."""

from sanakit.training.objectives.adversarial import (
    PatchDiscriminator,
    adaptive_weight,
    hinge_discriminator,
    hinge_generator,
)
from sanakit.training.objectives.autoencoder import AutoencoderLoss, AutoencoderObjective, Reconstruction
from sanakit.training.objectives.perceptual import (
    LPIPS_FILES,
    LpipsNet,
    Perceptual,
    choose_perceptual,
    lpips_missing,
    multiscale_edges,
)
from sanakit.training.objectives.phases import DCAE_PHASES, Phase, Trained, last_layer, trained_parameters
from sanakit.training.objectives.reconstruction import reconstruction
from sanakit.training.objectives.regularisation import RegularisationName, log_power, moment_kl
from sanakit.training.objectives.velocity import sample_errors, velocity
from sanakit.training.objectives.weighting import WeightingName, loss_by_time, time_weights

__all__ = [
    "DCAE_PHASES",
    "LPIPS_FILES",
    "AutoencoderLoss",
    "AutoencoderObjective",
    "LpipsNet",
    "PatchDiscriminator",
    "Perceptual",
    "Phase",
    "Reconstruction",
    "RegularisationName",
    "Trained",
    "WeightingName",
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
    "trained_parameters",
    "velocity",
]
