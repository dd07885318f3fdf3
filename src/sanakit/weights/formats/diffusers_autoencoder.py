"""diffusers' `AutoencoderDC`: its keys as a table and its config.json, both ways.

Their index inside a stage counts the up- and downsamplers, ours does not. Source: diffusers 0.42.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from sanakit.autoencoder import AutoencoderConfig, Stage
from sanakit.base.errors import ConfigError
from sanakit.weights.formats.fields import DIFFUSERS_VERSION, STRICT, Fields, UnknownFields, check_class
from sanakit.weights.rules import Join, Rename, Row, Table, affine, expand, under

CLASS = "AutoencoderDC"
_WIDTHS = (128, 256, 512, 512, 1024, 1024)
_SCALES = ((), (), (), (5,), (5,), (5,))

DEFAULTS: dict[str, Any] = {
    "in_channels": 3,
    "latent_channels": 32,
    "attention_head_dim": 32,
    "encoder_block_types": "ResBlock",
    "decoder_block_types": "ResBlock",
    "encoder_block_out_channels": _WIDTHS,
    "decoder_block_out_channels": _WIDTHS,
    "encoder_layers_per_block": (2, 2, 2, 3, 3, 3),
    "decoder_layers_per_block": (3, 3, 3, 3, 3, 3),
    "encoder_qkv_multiscales": _SCALES,
    "decoder_qkv_multiscales": _SCALES,
    "upsample_block_type": "pixel_shuffle",
    "downsample_block_type": "pixel_unshuffle",
    "decoder_norm_types": "rms_norm",
    "decoder_act_fns": "silu",
    "encoder_out_shortcut": True,
    "decoder_in_shortcut": True,
    "decoder_conv_act_fn": "relu",
    "scaling_factor": 1.0,
}
# Fields of other autoencoders and later releases, at the value that is computed here.
_HARMLESS: dict[str, tuple[object, ...]] = {
    "force_upcast": (False, True),
    "out_channels": (3,),
    "shift_factor": (0.0,),
    "use_post_quant_conv": (False,),
    "use_quant_conv": (False,),
    "use_slicing": (False,),
    "use_tiling": (False,),
}
_MAX_LAYERS = 200  # of one half; the largest published has 21
# A plain name for a stage's blocks, and the values of two enumerations of ours that read differently there.
_KINDS: dict[str, Literal["res", "evit"]] = {"ResBlock": "res", "EfficientViTBlock": "evit"}
# (The published SANA files say "Conv"; diffusers takes whatever is not pixel_unshuffle for a convolution.)
_DOWN: dict[str, Literal["conv", "unshuffle"]] = {
    "conv": "conv",
    "pixel_unshuffle": "unshuffle",
    "Conv": "conv",
}
_UP: dict[str, Literal["interpolate", "shuffle"]] = {"interpolate": "interpolate", "pixel_shuffle": "shuffle"}

_RES: tuple[Row, ...] = (
    *affine("conv1", "conv1"),
    Rename("conv2.weight", "conv2.weight"),
    *affine("norm", "norm"),
)
_EVIT: tuple[Row, ...] = (
    Join("attention.qkv.weight", ("attn.to_q.weight", "attn.to_k.weight", "attn.to_v.weight")),
    Rename("attention.out.weight", "attn.to_out.weight"),
    *affine("attention.norm", "attn.norm_out"),
    *affine("ffn.expand", "conv_out.conv_inverted"),
    *affine("ffn.depthwise", "conv_out.conv_depth"),
    Rename("ffn.project.weight", "conv_out.conv_point.weight"),
    *affine("ffn.norm", "conv_out.norm"),
)
_SCALE: tuple[Row, ...] = (
    Rename("attention.scales.{j}.depthwise.weight", "attn.to_qkv_multiscale.{j}.proj_in.weight"),
    Rename("attention.scales.{j}.pointwise.weight", "attn.to_qkv_multiscale.{j}.proj_out.weight"),
)


def table(config: AutoencoderConfig) -> Table:
    """Return the table for one configuration. Raises ConfigError as `to_config` does."""
    _check_depths(config)
    rows: list[Row] = [
        *affine("encoder.exit", "encoder.conv_out"),
        *affine("decoder.entry", "decoder.conv_in"),
    ]
    rows += affine("decoder.norm", "decoder.norm_out")
    # Without blocks at full resolution, the first (last) convolution is that of a downsampler (upsampler).
    inner = ".conv" if config.encoder[0].depth == 0 else ""
    rows += affine(f"encoder.entry{inner}", f"encoder.conv_in{inner}")
    inner = ".conv" if config.decoder[0].depth == 0 else ""
    rows += affine(f"decoder.exit{inner}", f"decoder.conv_out{inner}")
    for s, stage in enumerate(config.encoder):
        resamples = stage.depth > 0 and s + 1 < len(config.encoder)
        rows += _stage(f"encoder.stages.{s}", f"encoder.down_blocks.{s}", stage, first=0)
        rows += (
            affine(f"encoder.stages.{s}.down.conv", f"encoder.down_blocks.{s}.{stage.depth}.conv")
            if resamples
            else ()
        )
    for s, stage in enumerate(config.decoder):
        resamples = stage.depth > 0 and s + 1 < len(config.decoder)
        rows += _stage(f"decoder.stages.{s}", f"decoder.up_blocks.{s}", stage, first=int(resamples))
        rows += affine(f"decoder.stages.{s}.up.conv", f"decoder.up_blocks.{s}.0.conv") if resamples else ()
    return Table(rows)


def _stage(ours: str, theirs: str, stage: Stage, first: int) -> list[Row]:
    """Return the blocks of one stage; theirs are numbered from `first`."""
    block = _RES if stage.kind == "res" else _EVIT + expand(_SCALE, j=range(len(stage.scales)))
    rows: list[Row] = []
    for b in range(stage.depth):
        rows += under(f"{ours}.blocks.{b}", f"{theirs}.{b + first}", block)
    return rows


def from_config(
    data: Mapping[str, Any], where: str = "vae/config.json", unknown: UnknownFields = STRICT
) -> AutoencoderConfig:
    """Their config.json -> ours. Raises ConfigError for unknown, ill-typed or contradictory fields."""
    check_class(data, CLASS, where)
    fields = Fields(data, DEFAULTS, where, unknown, _HARMLESS)
    fields.exactly("in_channels", 3, "only pictures with 3 channels are supported")
    encoder, decoder = _stages(fields, "encoder"), _stages(fields, "decoder")
    fields.words("decoder_norm_types", len(decoder), ("rms_norm",))
    fields.words("decoder_act_fns", len(decoder), ("silu",))
    config = AutoencoderConfig(
        latent_channels=fields.integer("latent_channels"),
        head_dim=fields.integer("attention_head_dim"),
        encoder=encoder,
        decoder=decoder,
        downsample=_DOWN[str(fields.choice("downsample_block_type", _DOWN))],
        upsample=_UP[str(fields.choice("upsample_block_type", _UP))],
        decoder_out_act="relu"
        if fields.choice("decoder_conv_act_fn", ("relu", "silu")) == "relu"
        else "silu",
        encoder_shortcut=fields.flag("encoder_out_shortcut"),
        decoder_shortcut=fields.flag("decoder_in_shortcut"),
        scaling_factor=fields.number("scaling_factor", low=1e-4, high=1e4),
    )
    _check_depths(config, where)
    return config


def _stages(fields: Fields, half: str) -> tuple[Stage, ...]:
    """Return the stages of one half, from four lists of the same length."""
    widths = fields.integers(f"{half}_block_out_channels")
    depths = fields.integers(f"{half}_layers_per_block", low=0, high=_MAX_LAYERS)
    kinds = fields.words(f"{half}_block_types", len(widths), _KINDS)
    if len(depths) != len(widths):
        raise fields.fail(
            f"{half}_layers_per_block", f"but {half}_block_out_channels has {len(widths)} stages"
        )
    if sum(depths) > _MAX_LAYERS:
        raise fields.fail(f"{half}_layers_per_block", f"but at most {_MAX_LAYERS} layers are read")
    scales = _scales(fields, f"{half}_qkv_multiscales", len(widths))
    return tuple(
        Stage(_KINDS[kind], width, depth, kernels if _KINDS[kind] == "evit" else ())
        for kind, width, depth, kernels in zip(kinds, widths, depths, scales, strict=True)
    )


def _scales(fields: Fields, name: str, count: int) -> tuple[tuple[int, ...], ...]:
    """One list of odd kernel sizes per stage."""
    value = fields.values[name]
    if not isinstance(value, list | tuple) or len(value) != count:
        raise fields.fail(name, f"but must hold one list for each of the {count} stages")
    for kernels in value:
        good = isinstance(kernels, list | tuple) and len(kernels) <= 8
        if not good or any(type(k) is not int or not 1 <= k <= 31 or k % 2 == 0 for k in kernels):
            raise fields.fail(name, "but each stage needs a list of odd kernel sizes up to 31")
    return tuple(tuple(kernels) for kernels in value)


def _check_depths(config: AutoencoderConfig, where: str = "autoencoder") -> None:
    """Refuse an empty stage in the middle: it would lose its resampler, in diffusers as here."""
    for half, stages in (("encoder", config.encoder), ("decoder", config.decoder)):
        empty = [s for s, stage in enumerate(stages) if s > 0 and stage.depth == 0]
        if empty:
            raise ConfigError(
                f"{where}: {half} stage {empty[0]} has no layers; only the first stage may be empty"
            )


def to_config(config: AutoencoderConfig) -> dict[str, Any]:
    """Ours -> their config.json. Raises ConfigError for an empty stage other than the first."""
    _check_depths(config)
    return {
        **DEFAULTS,
        "_class_name": CLASS,
        "_diffusers_version": DIFFUSERS_VERSION,
        "latent_channels": config.latent_channels,
        "attention_head_dim": config.head_dim,
        **_half_fields("encoder", config.encoder),
        **_half_fields("decoder", config.decoder),
        "upsample_block_type": "interpolate" if config.upsample == "interpolate" else "pixel_shuffle",
        "downsample_block_type": "conv" if config.downsample == "conv" else "pixel_unshuffle",
        "encoder_out_shortcut": config.encoder_shortcut,
        "decoder_in_shortcut": config.decoder_shortcut,
        "decoder_conv_act_fn": config.decoder_out_act,
        "scaling_factor": config.scaling_factor,
    }


def _half_fields(half: str, stages: tuple[Stage, ...]) -> dict[str, Any]:
    return {
        f"{half}_block_types": [
            "ResBlock" if stage.kind == "res" else "EfficientViTBlock" for stage in stages
        ],
        f"{half}_block_out_channels": [stage.width for stage in stages],
        f"{half}_layers_per_block": [stage.depth for stage in stages],
        f"{half}_qkv_multiscales": [list(stage.scales) if stage.kind == "evit" else [] for stage in stages],
    }
