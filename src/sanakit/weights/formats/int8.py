"""Transformers in int8: a component folder with `int8.safetensors` (or shards) under our names beside config.json.

A quantised layer `name` has `name.weight` in int8 and `name.steps` in float32, one scale per output, which the module
calls `name.scales`; everything else is as it was. diffusers can't read such a folder.
"""

from __future__ import annotations

from collections.abc import Collection

from sanakit.transformer import TransformerConfig
from sanakit.weights.rules import Rename, Table

STEM = "int8"
_STORED, _SCALES = ".steps", ".scales"
"""How the name of a layer's scales ends in the file, and in the module."""


def table(config: TransformerConfig, keys: Collection[str]) -> Table:
    """Names are ours but for the scales; which layers are quantised is up to the file, so `keys` decide what there is.

    keys: of the file, or of the module.
    """
    return Table(Rename(_renamed(key, _STORED, _SCALES), _renamed(key, _SCALES, _STORED)) for key in keys)


def _renamed(key: str, end: str, other: str) -> str:
    return key.removesuffix(end) + other if key.endswith(end) else key


def quantised_layers(keys: Collection[str]) -> tuple[str, ...]:
    """Return the layers in int8, from the names in the file."""
    return tuple(key.removesuffix(_STORED) for key in keys if key.endswith(_STORED))


def exact_dtype(keys: Collection[str]) -> frozenset[str]:
    """Tensors, by our names, that keep the dtype of the file: int8 weights and their float32 scales."""
    return frozenset(f"{layer}{part}" for layer in quantised_layers(keys) for part in (".weight", _SCALES))
