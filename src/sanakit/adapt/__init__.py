"""Edits of a model that is built: its parts are replaced, its code is not."""

from sanakit.adapt.pack import PackedLinear, PackReport, pack
from sanakit.adapt.quantise import Int8Linear, QuantReport, expect_int8, quantise

__all__ = ["Int8Linear", "QuantReport", "PackReport", "PackedLinear", "expect_int8", "pack", "quantise"]
