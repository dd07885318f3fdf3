"""What ends a branch of DC-AE: RMS norm over channels, then the residual."""

from sanakit.kernels.rms_norm.reference import rms_norm

__all__ = ["rms_norm"]
