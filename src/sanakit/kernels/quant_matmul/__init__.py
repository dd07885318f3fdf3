"""Products in 8 bits: quantised weights with a scale per output channel, activations with a scale per token."""

from sanakit.kernels.quant_matmul.reference import QuantTokens, fp8_matmul, int8_matmul

__all__ = ["QuantTokens", "fp8_matmul", "int8_matmul"]
