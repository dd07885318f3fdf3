"""The middle of the Mix-FFN: depthwise 3x3, then a SiLU gate."""

from sanakit.kernels.mix_ffn.reference import depthwise_glu, gated_depthwise

__all__ = ["depthwise_glu", "gated_depthwise"]
