"""ReLU linear attention, O(N) in tokens."""

from sanakit.kernels.linear_attention.reference import linear_attention
from sanakit.kernels.linear_attention.state import AttentionState

__all__ = ["AttentionState", "linear_attention"]
