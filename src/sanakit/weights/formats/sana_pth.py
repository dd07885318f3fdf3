"""The official `.pth` checkpoints: their keys as a table, and the configuration read off the shapes.

Their q, k, v and k, v lie fused, as ours do. A file holds the transformer only, and no configuration.
Source: the published checkpoints' key scheme (NVlabs/Sana, `SanaMS` and `SanaMSCM`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from sanakit.base.dialect import OFFICIAL
from sanakit.base.errors import ConfigError, WeightsError
from sanakit.transformer import TransformerConfig
from sanakit.weights.formats.fields import MAX_WIDTH
from sanakit.weights.rules import Drop, Rename, Row, Squeeze, Table, affine, under

NULL_CAPTION = "y_embedder.y_embedding"
# Cross-attention heads leave no trace in the shapes; these widths have one published value each.
CROSS_HEADS = {1152: 16, 2240: 20}
_HEAD_DIM = 32
_BLOCK_KEY = re.compile(r"blocks\.(\d{1,3})\.")
# Positional tables came with the 2K and 4K models, in proportion to the side they were trained at.
_POSITION_SCALE = {64: 1.0, 128: 2.0}

_LOGVAR = "it weighs the loss of Sprint's distillation and isn't part of the prediction"

_OUTSIDE: tuple[Row, ...] = (
    *affine("patch", "x_embedder.proj"),
    *affine("time.input", "t_embedder.mlp.0"),
    *affine("time.output", "t_embedder.mlp.2"),
    *affine("modulation", "t_block.1"),
    *affine("text.input", "y_embedder.y_proj.fc1"),
    *affine("text.output", "y_embedder.y_proj.fc2"),
    Rename("text.norm.weight", "attention_y_norm.weight"),
    Drop("pos_embed", "a buffer: zeros, or the sin-cos table that the configuration determines"),
    Drop(NULL_CAPTION, "states of the empty prompt, which the text encoder gives; never trained"),
    Drop("logvar_linear.weight", _LOGVAR, trained=True),
    Drop("logvar_linear.bias", _LOGVAR, trained=True),
)
HEAD: tuple[Row, ...] = (
    Rename("head.table", "final_layer.scale_shift_table"),
    *affine("head.out", "final_layer.linear"),
)
_GUIDANCE: tuple[Row, ...] = (
    *affine("guidance.input", "cfg_embedder.mlp.0"),
    *affine("guidance.output", "cfg_embedder.mlp.2"),
)
_BLOCK: tuple[Row, ...] = (
    Rename("table", "scale_shift_table"),
    Rename("attention.qkv.weight", "attn.qkv.weight"),
    *affine("attention.out", "attn.proj"),
    *affine("cross.q", "cross_attn.q_linear"),
    *affine("cross.kv", "cross_attn.kv_linear"),
    *affine("cross.out", "cross_attn.proj"),
    Squeeze("ffn.expand.weight", "mlp.inverted_conv.conv.weight"),
    Rename("ffn.expand.bias", "mlp.inverted_conv.conv.bias"),
    *affine("ffn.depthwise", "mlp.depth_conv.conv"),
    Squeeze("ffn.project.weight", "mlp.point_conv.conv.weight"),
)
_QK_NORM: tuple[Row, ...] = (
    Rename("attention.norm_q.weight", "attn.q_norm.weight"),
    Rename("attention.norm_k.weight", "attn.k_norm.weight"),
    Rename("cross.norm_q.weight", "cross_attn.q_norm.weight"),
    Rename("cross.norm_k.weight", "cross_attn.k_norm.weight"),
)


def table(config: TransformerConfig) -> Table:
    """Return the table for one configuration."""
    blocks = [f"blocks.{number}" for number in range(config.depth)]
    return Table((*backbone_rows(config, blocks), *HEAD))


def backbone_rows(config: TransformerConfig, blocks: Sequence[str]) -> tuple[Row, ...]:
    """Return the rows of all but the head. blocks: where each of our blocks lies in the file."""
    rows = _OUTSIDE + _GUIDANCE if config.guidance_embed else _OUTSIDE
    inner = block_rows(config)
    each = (under(f"blocks.{number}", theirs, inner) for number, theirs in enumerate(blocks))
    return (*rows, *chain.from_iterable(each))


def block_rows(config: TransformerConfig) -> tuple[Row, ...]:
    """Return the rows of one block, below its name."""
    return _BLOCK + _QK_NORM if config.qk_norm else _BLOCK


@dataclass(frozen=True, kw_only=True)
class TensorFacts:
    """Facts about a network that its tensors show. values: fields of its configuration; hidden: width of its Mix-FFN.

    side: of the training latent, if there is a positional buffer; it may hold zeros.
    """

    values: Mapping[str, Any]
    hidden: int
    side: int | None


def is_sana(shapes: Mapping[str, Sequence[int]]) -> bool:
    """Return whether key -> shape are those of a SANA image transformer, as far as one key tells."""
    return "x_embedder.proj.weight" in shapes


def read_shapes(shapes: Mapping[str, Sequence[int]], where: str = "the .pth") -> TensorFacts:
    """Read off key -> shape. Raises WeightsError when the keys are not those of a SANA image transformer."""
    width, channels, patch, _ = _shape(shapes, "x_embedder.proj.weight", 4, where)
    hidden = _shape(shapes, "blocks.0.mlp.inverted_conv.conv.weight", 4, where)[0] // 2
    text_width = _shape(shapes, "y_embedder.y_proj.fc1.weight", 2, where)[1]
    if not hidden or max(width, channels, patch, hidden, text_width) > MAX_WIDTH:
        raise WeightsError(f"{where} is not a SANA image transformer: its tensors have impossible widths")
    values = {
        "latent_channels": channels,
        "width": width,
        "depth": 1 + max(int(match[1]) for key in shapes if (match := _BLOCK_KEY.match(key))),
        "text_width": text_width,
        "patch_size": patch,
        "qk_norm": "blocks.0.attn.q_norm.weight" in shapes,
        "guidance_embed": "cfg_embedder.mlp.0.weight" in shapes,
    }
    return TensorFacts(values=values, hidden=hidden, side=_side(shapes, patch))


def infer_config(
    shapes: Mapping[str, Sequence[int]],
    *,
    cross_heads: int | None = None,
    sample_size: int | None = None,
    position_scale: float | None = None,
    where: str = "the .pth",
) -> TransformerConfig:
    """Return the configuration in the official dialect, from key -> shape and SANA's conventions.

    sample_size comes from `pos_embed` if there is one, else 32; a side of 64 (2K) or 128 (4K) implies the
    published `position_scale`. Arguments win over what is inferred. Raises WeightsError when the keys are not those
    of a SANA image transformer, ConfigError when the number of cross-attention heads can't be known.
    """
    facts = read_shapes(shapes, where)
    width = facts.values["width"]
    if cross_heads is None and width not in CROSS_HEADS:
        known = ", ".join(f"{heads} at {width}" for width, heads in CROSS_HEADS.items())
        raise ConfigError(
            f"{where} has width {width}, whose cross_heads can't be told (known: {known}): "
            f"give --config FILE or --like-model NAME, or --cross-heads where it is converted"
        )
    side = sample_size or facts.side or 32
    if position_scale is None:
        position_scale = _POSITION_SCALE.get(side)
    config = TransformerConfig(
        **facts.values,
        heads=max(width // _HEAD_DIM, 1),
        cross_heads=cross_heads or CROSS_HEADS[width],
        ffn_ratio=ffn_ratio(facts.hidden, width),
        sample_size=side,
        position_scale=position_scale,
    )
    return config.with_dialect(OFFICIAL)


def ffn_ratio(hidden: int, width: int) -> float:
    """Return a ratio that gives the hidden width, which is rounded down: 2.5 if it does, as in all published models."""
    return next(
        ratio for ratio in (2.5, hidden / width, (hidden + 0.5) / width) if int(ratio * width) == hidden
    )


def _side(shapes: Mapping[str, Sequence[int]], patch: int) -> int | None:
    """Side of the training latent, from the size of the positional buffer [1, (side / patch)^2, D]."""
    shape = shapes.get("pos_embed", ())
    side = round(shape[1] ** 0.5) if len(shape) == 3 else 0
    return side * patch if side > 0 and side * side == shape[1] else None


def _shape(shapes: Mapping[str, Sequence[int]], key: str, dims: int, where: str) -> tuple[int, ...]:
    shape = tuple(shapes.get(key, ()))
    if len(shape) != dims or 0 in shape:
        found = f"has shape {list(shape)}" if shape else "is missing"
        raise WeightsError(f"{where} is not a SANA image transformer: {key} {found}")
    return shape
