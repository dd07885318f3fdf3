"""What ends a branch of DC-AE: RMS norm over channels, then the residual."""

from sanakit.kernels.residual_norm.reference import residual_norm

__all__ = ["residual_norm"]
