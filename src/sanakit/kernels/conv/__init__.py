"""Convolutions that keep the size, with what follows them: y = act(conv(x) + b)."""

from sanakit.kernels.conv.reference import conv

__all__ = ["conv"]
