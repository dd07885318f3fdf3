"""Transformers in int8 on disk: `int8.safetensors` (or shards) under our names, beside the usual config.json.

A layer `name` that was rounded has `name.weight` in int8 and `name.steps` in float32, one step per output; the rest is
as it was. diffusers does not read such a folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from sanakit.transformer import TransformerConfig
from sanakit.weights.formats import diffusers_transformer
from sanakit.weights.load import assign
from sanakit.weights.read import Weights, open_weights, variants
from sanakit.weights.save import MAX_SHARD_SIZE, save_component

__all__ = ["INT8_STEM", "holds_int8", "int8_layers", "load_int8", "save_int8"]

INT8_STEM = "int8"
_STEPS = ".steps"


def holds_int8(source: Path) -> bool:
    """Whether a transformer's folder is in int8."""
    return source.is_dir() and bool(variants((path.name for path in source.iterdir()), INT8_STEM))


def int8_layers(folder: Path) -> tuple[str, ...]:
    """Names of the layers that are in int8. Raises WeightsError as `open_weights`."""
    return _rounded(open_weights(folder, INT8_STEM))


def _rounded(weights: Weights) -> tuple[str, ...]:
    return tuple(key.removesuffix(_STEPS) for key in weights if key.endswith(_STEPS))


def save_int8(
    folder: Path,
    config: TransformerConfig,
    state: Mapping[str, Tensor],
    max_shard_size: int | str = MAX_SHARD_SIZE,
) -> list[Path]:
    """Write a rounded transformer's state as a component folder. Raises ConfigError, OutputError."""
    config_json = diffusers_transformer.to_config(config)
    return save_component(folder, config_json, state, {"max_shard_size": max_shard_size}, INT8_STEM)


def load_int8(
    module: nn.Module, folder: Path, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> None:
    """Fill a transformer whose layers are int8 ones where the folder's are. Raises WeightsError.

    dtype is that of all that was not rounded; steps stay float32.
    """
    weights = open_weights(folder, INT8_STEM)
    kept = frozenset(f"{layer}{part}" for layer in _rounded(weights) for part in (".weight", _STEPS))
    assign(module, weights.items(), dtype=dtype, device=device, where=str(folder), as_stored=kept)
