"""The operators that SANA spends its time in: one folder each, a plain-torch reference first, fast rows beside it.

A reference is the documentation of its operator: it is what every faster implementation is tested against.
"""

from sanakit.kernels.int8_matmul import QuantTokens
from sanakit.kernels.linear_attention import AttentionState
from sanakit.kernels.ops import (
    add_norm_modulate,
    add_norm_modulate_quant,
    conv,
    depthwise_glu,
    fp8_matmul,
    gated_depthwise,
    int8_matmul,
    linear_attention,
    modulated_norm,
    prepare_int8,
    rms_norm,
)
from sanakit.kernels.qk_norm import QKNorm

__all__ = [
    "AttentionState",
    "QKNorm",
    "QuantTokens",
    "conv",
    "depthwise_glu",
    "fp8_matmul",
    "gated_depthwise",
    "int8_matmul",
    "linear_attention",
    "modulated_norm",
    "prepare_int8",
    "rms_norm",
    "add_norm_modulate",
    "add_norm_modulate_quant",
]
