"""Edits of a built model: its modules are replaced or wrapped, its code is not."""

from sanakit.adapt.pack import PackedLinear, PackReport, pack
from sanakit.adapt.quantise import Int8Linear, QuantReport, expect_int8, quantise

__all__ = ["Int8Linear", "QuantReport", "PackReport", "PackedLinear", "expect_int8", "pack", "quantise"]
