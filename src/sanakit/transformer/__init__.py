"""The SANA transformer: a linear-attention rectified-flow network from noise, time and text to velocity."""

from sanakit.transformer.config import TransformerConfig
from sanakit.transformer.init import initialise
from sanakit.transformer.model import Perturbation, SanaTransformer, TextMemory, build_block
from sanakit.transformer.presets import PRESETS

__all__ = [
    "PRESETS",
    "Perturbation",
    "SanaTransformer",
    "TextMemory",
    "TransformerConfig",
    "build_block",
    "initialise",
]
