"""The SANA transformer: a linear-attention rectified-flow network from noise, time and text to velocity."""

from sanakit.transformer.config import Positions, TransformerConfig
from sanakit.transformer.model import SanaTransformer, TextKV, build_block, initialise
from sanakit.transformer.presets import PRESETS

__all__ = [
    "PRESETS",
    "Positions",
    "SanaTransformer",
    "TextKV",
    "TransformerConfig",
    "build_block",
    "initialise",
]
