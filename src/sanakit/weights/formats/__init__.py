"""One module per format: its table of keys and its configuration files, both ways; `registry` lists them all."""

from sanakit.weights.formats import (
    dcae_pth,
    diffusers_autoencoder,
    diffusers_control,
    diffusers_scheduler,
    diffusers_transformer,
    gemma,
    int8,
    sana_control_pth,
    sana_pth,
)

__all__ = [
    "dcae_pth",
    "diffusers_autoencoder",
    "diffusers_control",
    "diffusers_scheduler",
    "diffusers_transformer",
    "gemma",
    "int8",
    "sana_control_pth",
    "sana_pth",
]
