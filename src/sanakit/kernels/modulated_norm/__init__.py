"""LayerNorm without weights, then AdaLN shift and scale."""

from sanakit.kernels.modulated_norm.reference import modulated_norm

__all__ = ["modulated_norm"]
