"""ReLU linear attention, O(N) in tokens."""

from sanakit.kernels.linear_attention.reference import linear_attention

__all__ = ["linear_attention"]
