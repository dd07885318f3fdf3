"""Twice the resolution: nearest x2, then a 3x3 convolution."""

from sanakit.kernels.upsample_conv.reference import upsample_conv

__all__ = ["upsample_conv"]
