"""RMS norms: of a map"s channels, with the residual that ends a branch of DC-AE, and of queries and keys."""

from sanakit.kernels.rms_norm.reference import QKNorm, qk_norm, rms_norm

__all__ = ["QKNorm", "qk_norm", "rms_norm"]
