"""The official `.pth` of a ControlNet: the base network, and under `controlnet.` the copied blocks; it is only read.

Its copies begin behind block 0 of the base, which is read from the same file; the base's other blocks and head are
those of its own file. Source: the published code's key scheme (NVlabs/Sana, `SanaMSControlNet`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from sanakit.base.dialect import OFFICIAL
from sanakit.base.errors import ConfigError, WeightsError
from sanakit.transformer import ControlConfig, TransformerConfig
from sanakit.weights.formats import sana_pth
from sanakit.weights.rules import Drop, Table, affine, expand

LEAD = 1
"""Blocks of the base before the first copy."""

_COPY = re.compile(r"controlnet\.(\d{1,3})\.copied_block\.")
_BASE = "of the base network, which is frozen and has a file of its own"

Shapes = Mapping[str, Sequence[int]]


def is_control(shapes: Shapes) -> bool:
    """Return whether key -> shape are those of an official ControlNet, as far as one key tells."""
    return "controlnet.0.after_proj.weight" in shapes


def table(config: ControlConfig) -> Table:
    """Return the table for one configuration with the official wiring."""
    inner = sana_pth.backbone_rows(config.backbone, ("blocks.0", *copied(config.copies)))
    base = range(LEAD, config.base_depth or LEAD)
    past = [Drop(key, _BASE) for i in base for key in _base_keys(config, i)]
    head = [Drop(key, _BASE) for row in sana_pth.HEAD for key in row.their_keys]
    outputs = expand(affine("outputs.{i}", "controlnet.{i}.after_proj"), i=range(config.copies))
    return Table((*inner, *past, *head, *affine("input", "controlnet.0.before_proj"), *outputs))


def copied(copies: int) -> list[str]:
    """Where the copies lie in a file."""
    return [f"controlnet.{number}.copied_block" for number in range(copies)]


def _base_keys(config: ControlConfig, number: int) -> list[str]:
    rows = sana_pth.block_rows(config.backbone)
    return [f"blocks.{number}.{key}" for row in rows for key in row.their_keys]


def read_shapes(shapes: Shapes, where: str = "the .pth") -> sana_pth.TensorFacts:
    """Read off key -> shape; the depth is LEAD + copies. Raises WeightsError for other networks."""
    facts = sana_pth.read_shapes(shapes, where)
    numbers = {int(match[1]) for key in shapes if (match := _COPY.match(key))}
    if numbers != set(range(len(numbers))):
        raise WeightsError(f"{where} lacks copied blocks: it has {sorted(numbers)[:8]}")
    return replace(facts, values={**facts.values, "depth": LEAD + len(numbers)})


def infer_config(shapes: Shapes, *, where: str = "the .pth", **known: Any) -> ControlConfig:
    """Return the configuration, from key -> shape and SANA's conventions; known: as of `sana_pth.infer_config`.

    Raises WeightsError and ConfigError as there.
    """
    base = sana_pth.infer_config(shapes, where=where, **known)
    depth = read_shapes(shapes, where).values["depth"]
    return ControlConfig(backbone=replace(base, depth=depth), lead=LEAD, base_depth=base.depth)


def of_base(shapes: Shapes, base: TransformerConfig, where: str = "the .pth") -> ControlConfig:
    """Return the configuration, from key -> shape and the network that it steers.

    Raises WeightsError for other networks, ConfigError if it was made for a network of another width.
    """
    facts = read_shapes(shapes, where)
    width = facts.values["width"]
    if width != base.width or facts.hidden != int(base.ffn_ratio * base.width):
        raise ConfigError(
            f"{where} was made for a model of width {width} with {facts.hidden} channels inside its feed-forward, and "
            f"this one has {base.width} and {int(base.ffn_ratio * base.width)}"
        )
    backbone = replace(base.with_dialect(OFFICIAL), **facts.values)
    depth = sana_pth.read_shapes(shapes, where).values["depth"]
    return ControlConfig(backbone=backbone, lead=LEAD, base_depth=depth)


def in_diffusers_wiring(
    config: ControlConfig, weights: Mapping[str, Tensor]
) -> tuple[ControlConfig, dict[str, Tensor]]:
    """Return the same copies without the base's block before them, as diffusers' own conversion has it.

    diffusers starts them at the latent's tokens and adds each residual one block later: another computation.
    """
    depth = config.copies
    kept = {name: weight for name, weight in weights.items() if not name.startswith("blocks.")}
    for number in range(depth):
        old, new = f"blocks.{LEAD + number}.", f"blocks.{number}."
        kept |= {new + n.removeprefix(old): weight for n, weight in weights.items() if n.startswith(old)}
    return ControlConfig(backbone=replace(config.backbone, depth=depth)), kept
