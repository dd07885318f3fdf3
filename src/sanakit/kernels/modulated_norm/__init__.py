"""LayerNorm without weights, then AdaLN shift and scale."""

from sanakit.kernels.modulated_norm.reference import add, modulated_norm, residual_norm_modulated

__all__ = ["add", "modulated_norm", "residual_norm_modulated"]
