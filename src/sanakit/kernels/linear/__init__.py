"""Linear layers with what follows them: y = act(x W^T + b)."""

from sanakit.kernels.linear.reference import Act, linear

__all__ = ["Act", "linear"]
