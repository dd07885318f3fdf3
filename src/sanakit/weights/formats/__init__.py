"""One module per foreign format: its table of keys and its configuration files, both ways."""

from sanakit.weights.formats import (
    dcae_pth,
    diffusers_autoencoder,
    diffusers_scheduler,
    diffusers_transformer,
    gemma,
    sana_pth,
)

__all__ = [
    "dcae_pth",
    "diffusers_autoencoder",
    "diffusers_scheduler",
    "diffusers_transformer",
    "gemma",
    "sana_pth",
]
