"""ReLU linear attention, O(N) in tokens, with the qk-norm before it."""

from sanakit.kernels.linear_attention.reference import (
    AttentionState,
    linear_attention,
    qk_norm_linear_attention,
)

__all__ = ["AttentionState", "linear_attention", "qk_norm_linear_attention"]
