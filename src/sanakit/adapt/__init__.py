"""Edits of a model that is built: its parts are replaced, its code is not."""

from sanakit.adapt.int8 import Int8Linear, QuantReport, expect_int8, quantise
from sanakit.adapt.pack import PackReport, pack
from sanakit.adapt.packed import PackedLinear

__all__ = ["Int8Linear", "QuantReport", "PackReport", "PackedLinear", "expect_int8", "pack", "quantise"]
