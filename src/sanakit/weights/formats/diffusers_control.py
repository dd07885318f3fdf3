"""diffusers' `SanaControlNetModel`: its keys as a table and its config.json, both ways.

Its class knows SANA 1.0 alone. ControlNets of 1.5 and Sprint networks are written with the fields of
`SanaTransformer2DModel` that say so (`qk_norm`, `guidance_embeds`, ...), which diffusers doesn't read.
Source: the state dict and the constructor of diffusers 0.42.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sanakit.base.errors import ConfigError
from sanakit.transformer import COPIES, ControlConfig
from sanakit.weights.formats import diffusers_transformer
from sanakit.weights.formats.fields import STRICT, UnknownFields, check_class
from sanakit.weights.rules import Table, affine, expand

CLASS = "SanaControlNetModel"

LATER = ("guidance_embeds", "guidance_embeds_scale", "qk_norm", "timestep_scale")
"""Fields that their class lacks; written where they are not at their defaults."""


def table(config: ControlConfig) -> Table:
    """Build the table of a configuration. Raises ConfigError for the official wiring, which the format can't hold."""
    _check_wiring(config)
    outputs = expand(affine("outputs.{i}", "controlnet_blocks.{i}"), i=range(config.copies))
    rows = diffusers_transformer.backbone_rows(config.backbone)
    return Table((*rows, *affine("input", "input_block"), *outputs))


def from_config(
    data: Mapping[str, Any], where: str = "controlnet/config.json", unknown: UnknownFields = STRICT
) -> ControlConfig:
    """Their config.json -> ours. Raises ConfigError for unknown, ill-typed or contradictory fields."""
    check_class(data, CLASS, where)
    fields = {"num_layers": COPIES} | {name: value for name, value in data.items() if name != "_class_name"}
    return ControlConfig(backbone=diffusers_transformer.from_config(fields, where, unknown))


def to_config(config: ControlConfig) -> dict[str, Any]:
    """Ours -> their config.json. Raises ConfigError for what the format can't hold."""
    _check_wiring(config)
    fields = diffusers_transformer.to_config(config.backbone)
    usual = {name: diffusers_transformer.DEFAULTS[name] for name in LATER}
    left_out = [name for name, value in usual.items() if fields[name] == value]
    return {name: value for name, value in fields.items() if name not in left_out} | {"_class_name": CLASS}


def _check_wiring(config: ControlConfig) -> None:
    if config.lead:
        raise ConfigError("the official wiring of a ControlNet has no field in SanaControlNetModel")
