"""The operators that SANA spends its time in: a plain-torch reference each, and faster rows beside it.

A reference is the documentation of its operator, and what every faster implementation is tested against.
"""

from sanakit.kernels.linear import Act
from sanakit.kernels.linear_attention.reference import AttentionState
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
from sanakit.kernels.quant_matmul.reference import QuantTokens
from sanakit.kernels.rms_norm.reference import QKNorm

__all__ = [
    "Act",
    "AttentionState",
    "QKNorm",
    "QuantTokens",
    "add_norm_modulate",
    "add_norm_modulate_quant",
    "conv",
    "depthwise_glu",
    "fp8_matmul",
    "gated_depthwise",
    "int8_matmul",
    "linear_attention",
    "modulated_norm",
    "prepare_int8",
    "rms_norm",
]
