"""RMS norm of queries and keys over their full width, as linear attention applies it before its ReLU."""

from sanakit.kernels.qk_norm.reference import QKNorm, normalised

__all__ = ["QKNorm", "normalised"]
