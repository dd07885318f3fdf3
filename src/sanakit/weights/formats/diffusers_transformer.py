"""diffusers' `SanaTransformer2DModel`: its keys as a table and its config.json, both ways.

Source: the state dict and the constructor of diffusers 0.42.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sanakit.base.errors import ConfigError
from sanakit.transformer import TransformerConfig
from sanakit.weights.formats.fields import (
    DIFFUSERS_VERSION,
    MAX_WIDTH,
    STRICT,
    Fields,
    UnknownFields,
    check_class,
)
from sanakit.weights.rules import Join, Rename, Row, Squeeze, Table, affine, expand, under

CLASS = "SanaTransformer2DModel"
QK_NORM = "rms_norm_across_heads"

DEFAULTS: dict[str, Any] = {
    "in_channels": 32,
    "out_channels": 32,
    "num_attention_heads": 70,
    "attention_head_dim": 32,
    "num_layers": 20,
    "num_cross_attention_heads": 20,
    "cross_attention_head_dim": 112,
    "cross_attention_dim": 2240,
    "caption_channels": 2304,
    "mlp_ratio": 2.5,
    "dropout": 0.0,
    "attention_bias": False,
    "sample_size": 32,
    "patch_size": 1,
    "norm_elementwise_affine": False,
    "norm_eps": 1e-6,
    "interpolation_scale": None,
    "guidance_embeds": False,
    "guidance_embeds_scale": 0.1,
    "qk_norm": None,
    "timestep_scale": 1.0,
}
# Fields of related classes and later releases, at the value that is computed here.
_HARMLESS: dict[str, tuple[object, ...]] = {
    "attention_dropout": (0.0,),
    "attention_out_bias": (True,),
    "ff_dropout": (0.0,),
    "use_rope": (False,),
}
_MAX_HIDDEN = 1 << 20  # channels of a feed-forward
_MAX_SIDE = 512  # of a training latent: 16384 px with the published autoencoders

_OUTSIDE: tuple[Row, ...] = (
    *affine("patch", "patch_embed.proj"),
    *affine("modulation", "time_embed.linear"),
    *affine("text.input", "caption_projection.linear_1"),
    *affine("text.output", "caption_projection.linear_2"),
    Rename("text.norm.weight", "caption_norm.weight"),
)
_HEAD: tuple[Row, ...] = (Rename("head.table", "scale_shift_table"), *affine("head.out", "proj_out"))
_BLOCK: tuple[Row, ...] = (
    Rename("table", "scale_shift_table"),
    Join("attention.qkv.weight", ("attn1.to_q.weight", "attn1.to_k.weight", "attn1.to_v.weight")),
    *affine("attention.out", "attn1.to_out.0"),
    *affine("cross.q", "attn2.to_q"),
    Join("cross.kv.weight", ("attn2.to_k.weight", "attn2.to_v.weight")),
    Join("cross.kv.bias", ("attn2.to_k.bias", "attn2.to_v.bias")),
    *affine("cross.out", "attn2.to_out.0"),
    Squeeze("ffn.expand.weight", "ff.conv_inverted.weight"),
    Rename("ffn.expand.bias", "ff.conv_inverted.bias"),
    *affine("ffn.depthwise", "ff.conv_depth"),
    Squeeze("ffn.project.weight", "ff.conv_point.weight"),
)
_QK_NORM: tuple[Row, ...] = (
    Rename("attention.norm_q.weight", "attn1.norm_q.weight"),
    Rename("attention.norm_k.weight", "attn1.norm_k.weight"),
    Rename("cross.norm_q.weight", "attn2.norm_q.weight"),
    Rename("cross.norm_k.weight", "attn2.norm_k.weight"),
)


def table(config: TransformerConfig) -> Table:
    """Return the table for one configuration."""
    return Table((*backbone_rows(config), *_HEAD))


def backbone_rows(config: TransformerConfig) -> tuple[Row, ...]:
    """Return the rows of all but the head. Sprint's time embedder lies one level higher (no `.emb`)."""
    time = "time_embed.timestep_embedder" if config.guidance_embed else "time_embed.emb.timestep_embedder"
    rows = [*_OUTSIDE, *_embedder("time", time)]
    if config.guidance_embed:
        rows += _embedder("guidance", "time_embed.guidance_embedder")
    block = _BLOCK + _QK_NORM if config.qk_norm else _BLOCK
    return (*rows, *expand(under("blocks.{i}", "transformer_blocks.{i}", block), i=range(config.depth)))


def _embedder(ours: str, theirs: str) -> tuple[Row, ...]:
    return under(ours, theirs, (*affine("input", "linear_1"), *affine("output", "linear_2")))


def from_config(
    data: Mapping[str, Any], where: str = "transformer/config.json", unknown: UnknownFields = STRICT
) -> TransformerConfig:
    """Their config.json -> ours. Raises ConfigError for unknown, ill-typed or contradictory fields."""
    check_class(data, CLASS, where)
    fields = Fields(data, DEFAULTS, where, unknown, _HARMLESS)
    width = fields.integer("num_attention_heads") * fields.integer("attention_head_dim")
    if width > MAX_WIDTH:
        raise fields.fail("num_attention_heads", f"but a width of {width} is past {MAX_WIDTH}")
    _check_fixed(fields, width)
    fields.choice("qk_norm", (None, QK_NORM))
    scale = (
        None
        if fields.values["interpolation_scale"] is None
        else fields.number("interpolation_scale", high=1000)
    )
    return TransformerConfig(
        latent_channels=fields.integer("in_channels"),
        width=width,
        depth=fields.integer("num_layers", high=1000),
        heads=fields.integer("num_attention_heads"),
        cross_heads=fields.integer("num_cross_attention_heads"),
        text_width=fields.integer("caption_channels"),
        ffn_ratio=_ffn_ratio(fields, width),
        patch_size=fields.integer("patch_size", high=64),
        sample_size=fields.integer("sample_size", high=_MAX_SIDE),
        position_scale=scale,
        qk_norm=fields.values["qk_norm"] is not None,
        guidance_embed=fields.flag("guidance_embeds"),
        guidance_scale=fields.number("guidance_embeds_scale", high=1e4),
        time_scale=fields.number("timestep_scale", high=1e4),
        norm_eps=fields.number("norm_eps", low=1e-12, high=1),
    )


def _ffn_ratio(fields: Fields, width: int) -> float:
    ratio = fields.number("mlp_ratio", high=256)
    if not 1 <= int(ratio * width) <= _MAX_HIDDEN:
        hidden = int(ratio * width)
        raise fields.fail(
            "mlp_ratio", f"but {ratio:g} x {width} makes {hidden} channels, and 1 to {_MAX_HIDDEN} are read"
        )
    return ratio


def _check_fixed(fields: Fields, width: int) -> None:
    """Fields that other fields decide, or that no SANA checkpoint varies."""
    if fields.values["out_channels"] not in (None, fields.integer("in_channels")):
        raise fields.fail("out_channels", f"but must equal in_channels {fields.values['in_channels']}")
    cross = fields.integer("num_cross_attention_heads") * fields.integer("cross_attention_head_dim")
    if cross != width:
        raise fields.fail(
            "cross_attention_head_dim", f"but heads x head dim makes {cross} here and {width} in attn1"
        )
    fields.exactly("cross_attention_dim", width, f"must be the width {width}")
    fields.exactly("dropout", 0.0, "only 0 is supported")
    fields.exactly("attention_bias", False, "only false is supported")
    fields.exactly("norm_elementwise_affine", False, "only false is supported")


def to_config(config: TransformerConfig) -> dict[str, Any]:
    """Ours -> their config.json. Raises ConfigError for what the format can't hold (rotary positions)."""
    if config.rotary:
        raise ConfigError(
            "rotary positions have no field in SanaTransformer2DModel: use position_scale or none"
        )
    return {
        **DEFAULTS,
        "_class_name": CLASS,
        "_diffusers_version": DIFFUSERS_VERSION,
        "in_channels": config.latent_channels,
        "out_channels": config.latent_channels,
        "num_attention_heads": config.heads,
        "attention_head_dim": config.width // config.heads,
        "num_layers": config.depth,
        "num_cross_attention_heads": config.cross_heads,
        "cross_attention_head_dim": config.width // config.cross_heads,
        "cross_attention_dim": config.width,
        "caption_channels": config.text_width,
        "mlp_ratio": config.ffn_ratio,
        "sample_size": config.sample_size,
        "patch_size": config.patch_size,
        "norm_eps": config.norm_eps,
        "interpolation_scale": config.position_scale,
        "guidance_embeds": config.guidance_embed,
        "guidance_embeds_scale": config.guidance_scale,
        "qk_norm": QK_NORM if config.qk_norm else None,
        "timestep_scale": config.time_scale,
    }
