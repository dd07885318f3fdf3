"""One module per foreign format: its table of keys and its configuration files, both ways."""

from sanakit.weights.formats import (
    diffusers_autoencoder,
    diffusers_scheduler,
    diffusers_transformer,
    gemma,
    sana_pth,
)

__all__ = ["diffusers_autoencoder", "diffusers_scheduler", "diffusers_transformer", "gemma", "sana_pth"]
