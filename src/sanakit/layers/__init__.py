"""The parts that SANA networks are assembled from."""

from sanakit.layers.block import LinearBlock
from sanakit.layers.cross_attention import KV, CrossAttention
from sanakit.layers.embed import ScalarEmbed, TextEmbed, position_table, sinusoid
from sanakit.layers.linear_attention import LinearSelfAttention
from sanakit.layers.mix_ffn import MixFFN
from sanakit.layers.modulation import AdaLN, Modulation, split_modulation
from sanakit.layers.norm import ChannelRMSNorm, RMSNorm
from sanakit.layers.resample import Downsample, Upsample, channels_to_space, group_mean, space_to_channels
from sanakit.layers.rotary import axis_channels, rotary_angles

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
