"""The operators that SANA spends its time in: one folder each, a plain-torch reference first, fast rows beside it.

A reference is the documentation of its operator: it is what every faster implementation is tested against.
"""

from sanakit.kernels.int8_matmul import RoundedTokens
from sanakit.kernels.linear_attention import AttentionState
from sanakit.kernels.ops import (
    conv,
    depthwise_glu,
    fp8_matmul,
    gated_depthwise,
    int8_matmul,
    linear_attention,
    modulated_norm,
    prepare_int8,
    residual_norm,
    residual_norm_modulated,
    rounded_norm_modulated,
)
from sanakit.kernels.qk_norm import QKNorm

__all__ = [
    "AttentionState",
    "QKNorm",
    "RoundedTokens",
    "conv",
    "depthwise_glu",
    "fp8_matmul",
    "gated_depthwise",
    "int8_matmul",
    "linear_attention",
    "modulated_norm",
    "prepare_int8",
    "residual_norm",
    "residual_norm_modulated",
    "rounded_norm_modulated",
]
