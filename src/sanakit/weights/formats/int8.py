"""Transformers in int8: a component folder with `int8.safetensors` (or shards) under our names beside config.json.

A quantised layer `name` has `name.weight` in int8 and `name.steps` in float32, one scale per output; everything else
is as it was. diffusers can't read such a folder.
"""

from __future__ import annotations

from collections.abc import Collection

from sanakit.transformer import TransformerConfig
from sanakit.weights.rules import Rename, Table

STEM = "int8"
_SCALES = ".steps"


def table(config: TransformerConfig, keys: Collection[str]) -> Table:
    """Names are ours; which layers are quantised is up to the file, so `keys` decide what there is."""
    return Table(Rename(key, key) for key in keys)


def quantised_layers(keys: Collection[str]) -> tuple[str, ...]:
    """The layers in int8, from the names of the tensors."""
    return tuple(key.removesuffix(_SCALES) for key in keys if key.endswith(_SCALES))


def exact_dtype(keys: Collection[str]) -> frozenset[str]:
    """Tensors that keep the dtype of the file: int8 weights and their float32 scales."""
    return frozenset(f"{layer}{part}" for layer in quantised_layers(keys) for part in (".weight", _SCALES))
