"""The parts that SANA networks are assembled from."""

from sanakit.layers.attention import KV, CrossAttention, LinearSelfAttention
from sanakit.layers.block import LinearBlock, MixFFN
from sanakit.layers.embed import (
    ScalarEmbed,
    TextEmbed,
    axis_channels,
    position_table,
    rotary_angles,
    sinusoid,
)
from sanakit.layers.norm import AdaLN, ChannelRMSNorm, Modulation, RMSNorm, split_modulation
from sanakit.layers.resample import Downsample, Upsample, channels_to_space, group_mean, space_to_channels

__all__ = [
    "KV",
    "AdaLN",
    "ChannelRMSNorm",
    "CrossAttention",
    "Downsample",
    "LinearBlock",
    "LinearSelfAttention",
    "MixFFN",
    "Modulation",
    "RMSNorm",
    "ScalarEmbed",
    "TextEmbed",
    "Upsample",
    "axis_channels",
    "channels_to_space",
    "group_mean",
    "position_table",
    "rotary_angles",
    "sinusoid",
    "space_to_channels",
    "split_modulation",
]
