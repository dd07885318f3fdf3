"""The SANA transformer: a linear-attention rectified-flow network from noise, time and text to velocity."""

from sanakit.transformer.backbone import Backbone, TextKV, build_block
from sanakit.transformer.config import Positions, TransformerConfig
from sanakit.transformer.control import COPIES, ControlConfig, ControlNet, copy_base, placed
from sanakit.transformer.model import SanaTransformer, initialise
from sanakit.transformer.presets import PRESETS

__all__ = [
    "COPIES",
    "PRESETS",
    "Backbone",
    "ControlConfig",
    "ControlNet",
    "Positions",
    "SanaTransformer",
    "TextKV",
    "TransformerConfig",
    "build_block",
    "copy_base",
    "initialise",
    "placed",
]
