"""LayerNorm without weights, then AdaLN shift and scale."""

from sanakit.kernels.modulated_norm.reference import add, add_norm_modulate, modulated_norm

__all__ = ["add", "modulated_norm", "add_norm_modulate"]
