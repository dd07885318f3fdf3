"""DC-AE checkpoints with their authors' names: the keys as a table, and the configuration read off the shapes.

Their index inside a stage counts the up- and downsamplers; a block that has a shortcut lies under `main`. Source: the
key scheme of mit-han-lab/efficientvit (`models/efficientvit/dc_ae.py`, `models/nn/ops.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sanakit.autoencoder import PRESETS, AutoencoderConfig, Stage
from sanakit.base.errors import ConfigError, WeightsError
from sanakit.weights.rules import Rename, Row, Squeeze, Table, affine, expand, under

ENTRY = "encoder.project_in.conv"
_DEFAULT_HEAD = 32
_MAX_STAGES, _MAX_DEPTH = 16, 100

_RES: tuple[Row, ...] = (
    *affine("conv1", "main.conv1.conv"),
    Rename("conv2.weight", "main.conv2.conv.weight"),
    *affine("norm", "main.conv2.norm"),
)
_EVIT: tuple[Row, ...] = (
    Squeeze("attention.qkv.weight", "context_module.main.qkv.conv.weight"),
    Squeeze("attention.out.weight", "context_module.main.proj.conv.weight"),
    *affine("attention.norm", "context_module.main.proj.norm"),
    *affine("ffn.expand", "local_module.main.inverted_conv.conv"),
    *affine("ffn.depthwise", "local_module.main.depth_conv.conv"),
    Rename("ffn.project.weight", "local_module.main.point_conv.conv.weight"),
    *affine("ffn.norm", "local_module.main.point_conv.norm"),
)
_SCALE: tuple[Row, ...] = (
    Rename("attention.scales.{j}.depthwise.weight", "context_module.main.aggreg.{j}.0.weight"),
    Rename("attention.scales.{j}.pointwise.weight", "context_module.main.aggreg.{j}.1.weight"),
)
_KEY = re.compile(r"(encoder|decoder)\.stages\.(\d{1,2})\.op_list\.(\d{1,3})\.(.+)")


def is_dcae(shapes: Mapping[str, Sequence[int]]) -> bool:
    """Return whether a file's keys are those of an autoencoder of these authors."""
    return any(key.startswith(("encoder.project_in.", "decoder.project_in.")) for key in shapes)


def table(config: AutoencoderConfig) -> Table:
    """Return the table for one configuration."""
    down = ".conv.conv" if config.downsample == "unshuffle" else ".conv"
    first, last = config.encoder[0].depth == 0, config.decoder[0].depth == 0
    out, into = (".main" if has else "" for has in (config.encoder_shortcut, config.decoder_shortcut))
    rows: list[Row] = [
        # Without blocks at full resolution, the first (last) convolution is that of a downsampler (upsampler).
        *affine(
            f"encoder.entry{'.conv' if first else ''}", f"encoder.project_in{down if first else '.conv'}"
        ),
        *affine("encoder.exit", f"encoder.project_out{out}.op_list.0.conv"),
        *affine("decoder.entry", f"decoder.project_in{into}.conv"),
        *affine("decoder.norm", "decoder.project_out.op_list.0"),
        *affine(
            f"decoder.exit{'.conv' if last else ''}",
            f"decoder.project_out.op_list.2{'.conv' if last else ''}.conv",
        ),
    ]
    for s, stage in enumerate(config.encoder):
        rows += _stage(f"encoder.stages.{s}", stage, first=0)
        if stage.depth and s + 1 < len(config.encoder):
            place = f"encoder.stages.{s}.op_list.{stage.depth}.main{down}"
            rows += affine(f"encoder.stages.{s}.down.conv", place)
    for s, stage in enumerate(config.decoder):
        resamples = stage.depth > 0 and s + 1 < len(config.decoder)
        rows += _stage(f"decoder.stages.{s}", stage, first=int(resamples))
        if resamples:
            rows += affine(f"decoder.stages.{s}.up.conv", f"decoder.stages.{s}.op_list.0.main.conv.conv")
    return Table(rows)


def _stage(prefix: str, stage: Stage, first: int) -> list[Row]:
    """Return the blocks of one stage; theirs are numbered from `first`."""
    block = _RES if stage.kind == "res" else _EVIT + expand(_SCALE, j=range(len(stage.scales)))
    rows: list[Row] = []
    for b in range(stage.depth):
        rows += under(f"{prefix}.blocks.{b}", f"{prefix}.op_list.{b + first}", block)
    return rows


def infer_config(shapes: Mapping[str, Sequence[int]], where: str = "the file") -> AutoencoderConfig:
    """Return the published configuration with tensors of these shapes.

    No tensor gives the factor between latents and what the transformer reads, nor the activation before the last
    convolution. Raises WeightsError when the keys are not those of a DC-AE, ConfigError when no published one (or
    more than one) has such tensors.
    """
    seen = read_shapes(shapes, where)
    found = [config for config in dict.fromkeys(PRESETS.values()) if fits(config, seen)]
    if len(found) != 1:
        raise ConfigError(
            f"{where} has the tensors of no published autoencoder, and nothing tells its scaling factor: "
            "give --config FILE, the config.json of an AutoencoderDC"
        )
    return found[0]


def fits(config: AutoencoderConfig, seen: AutoencoderConfig) -> bool:
    """Return whether a configuration has the tensors that `seen` was read off."""
    same = replace(config, decoder_out_act=seen.decoder_out_act, scaling_factor=seen.scaling_factor)
    return _without_empty(same) == _without_empty(seen)


def _without_empty(config: AutoencoderConfig) -> AutoencoderConfig:
    """Give stages without blocks one width: they have none in the tensors."""
    halves: dict[str, Any] = {
        half: tuple(stage if stage.depth else Stage("res", stages[1].width, 0) for stage in stages)
        for half, stages in (("encoder", config.encoder), ("decoder", config.decoder))
    }
    return replace(config, **halves)


def read_shapes(shapes: Mapping[str, Sequence[int]], where: str) -> AutoencoderConfig:
    """Read a configuration off tensors, the rest at its default. Raises WeightsError if they aren't a DC-AE."""
    try:
        encoder, decoder = (_half(shapes, half) for half in ("encoder", "decoder"))
        scales = [tuple(shape) for key, shape in shapes.items() if re.search(r"aggreg\.0\.1\.weight$", key)]
        return AutoencoderConfig(
            latent_channels=_one(shapes, r"decoder\.project_in\.(main\.)?conv\.weight")[1],
            head_dim=scales[0][1] if scales else _DEFAULT_HEAD,
            encoder=encoder,
            decoder=decoder,
            downsample="unshuffle" if _unshuffles(shapes) else "conv",
            upsample="shuffle" if _shuffles(shapes, decoder) else "interpolate",
            encoder_shortcut="encoder.project_out.main.op_list.0.conv.weight" in shapes,
            decoder_shortcut="decoder.project_in.main.conv.weight" in shapes,
        )
    except (LookupError, ValueError, ZeroDivisionError, ConfigError) as error:
        reason = f" ({error})" if isinstance(error, ConfigError) else ""
        raise WeightsError(f"{where} isn't a DC-AE with its authors' names{reason}") from error


def _half(shapes: Mapping[str, Sequence[int]], half: str) -> tuple[Stage, ...]:
    blocks: dict[int, dict[int, dict[str, Sequence[int]]]] = {}
    for key, shape in shapes.items():
        match = _KEY.fullmatch(key)
        if match and match[1] == half:
            blocks.setdefault(int(match[2]), {}).setdefault(int(match[3]), {})[match[4]] = shape
    count = max(blocks) + 1
    if count > _MAX_STAGES:
        raise ValueError
    stages = [_read_stage(blocks.get(s, {})) for s in range(count)]
    if stages[0].depth == 0:
        stages[0] = Stage("res", stages[1].width, 0)
    return tuple(stages)


def _read_stage(blocks: Mapping[int, Mapping[str, Sequence[int]]]) -> Stage:
    res = [block for block in blocks.values() if "main.conv1.conv.weight" in block]
    evit = [block for block in blocks.values() if "context_module.main.qkv.conv.weight" in block]
    if (res and evit) or len(res) + len(evit) > _MAX_DEPTH:
        raise ValueError
    if evit:
        kernels = [
            key for key in evit[0] if re.fullmatch(r"context_module\.main\.aggreg\.\d\.0\.weight", key)
        ]
        scales = tuple(evit[0][key][2] for key in sorted(kernels))
        return Stage("evit", evit[0]["context_module.main.qkv.conv.weight"][1], len(evit), scales)
    return Stage("res", res[0]["main.conv1.conv.weight"][0] if res else 1, len(res))


def _unshuffles(shapes: Mapping[str, Sequence[int]]) -> bool:
    """Downsamplers that fold pixels into channels have one more `conv` in their names."""
    downs = r"encoder\.(project_in|stages\.\d+\.op_list\.\d+\.main)\.conv\.conv\.weight"
    return any(re.fullmatch(downs, key) for key in shapes)


def _shuffles(shapes: Mapping[str, Sequence[int]], decoder: tuple[Stage, ...]) -> bool:
    """Upsamplers that unfold channels into pixels make four times the width."""
    ups = r"decoder\.stages\.(\d+)\.op_list\.0\.main\.conv\.conv\.weight"
    found = [
        (shape[0], decoder[int(m[1])].width) for key, shape in shapes.items() if (m := re.fullmatch(ups, key))
    ]
    last = shapes.get("decoder.project_out.op_list.2.conv.conv.weight")
    found += [] if last is None else [(last[0], 3)]
    return any(made == 4 * width for made, width in found)


def _one(shapes: Mapping[str, Sequence[int]], pattern: str) -> Sequence[int]:
    return next((shape for key, shape in shapes.items() if re.fullmatch(pattern, key)), ())
