"""W8A8 products: int8 weights with a scale per output channel, int8 activations with a scale per token."""

from sanakit.kernels.int8_matmul.reference import int8_matmul, quantise_rows, quantise_tokens
from sanakit.kernels.int8_matmul.tokens import QuantTokens

__all__ = ["QuantTokens", "int8_matmul", "quantise_rows", "quantise_tokens"]
