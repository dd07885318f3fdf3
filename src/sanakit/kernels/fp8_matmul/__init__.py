"""Products in fp8 (e4m3): weights with a scale per output channel, activations with a scale per token."""

from sanakit.kernels.fp8_matmul.reference import fp8_matmul, quantise_rows

__all__ = ["fp8_matmul", "quantise_rows"]
