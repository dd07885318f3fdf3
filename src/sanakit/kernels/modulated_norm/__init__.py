"""LayerNorm and modulation (adaLN), with the residual sum before it."""

from sanakit.kernels.modulated_norm.reference import (
    add_norm_modulate,
    add_norm_modulate_quant,
    modulated_norm,
)

__all__ = ["add_norm_modulate", "add_norm_modulate_quant", "modulated_norm"]
