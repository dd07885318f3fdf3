"""A model folder of another depth: grown or pruned by a plan of `adapt.depth`, the other parts copied as they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from sanakit.adapt.depth import DepthPlan, origin_text, reshape_depth
from sanakit.base.errors import RequestError
from sanakit.pipeline.merged import refuse_other
from sanakit.transformer import SanaTransformer, TransformerConfig
from sanakit.weights import ModelSpec, check_parts, int8_layers, load_transformer, read_words, write_derived
from sanakit.weights.formats import diffusers_transformer
from sanakit.weights.save import MAX_SHARD_SIZE

__all__ = ["PlannedKey", "check_reshapable", "planned_keys", "reshaped_config", "write_reshaped"]


def reshaped_config(config: TransformerConfig, plan: DepthPlan, qk_norm: bool = False) -> TransformerConfig:
    """Return the configuration that a plan leads to. qk_norm: queries and keys get norms if they have none."""
    return replace(config, depth=len(plan), qk_norm=config.qk_norm or qk_norm)


@dataclass(frozen=True, kw_only=True)
class PlannedKey:
    """A tensor of the new model's file, by the name that it has there. origin: what it is, see `origin_text`."""

    key: str
    shape: tuple[int, ...]
    origin: str


def planned_keys(old: TransformerConfig, new: TransformerConfig, plan: DepthPlan) -> Iterator[PlannedKey]:
    """All tensors of the transformer that a plan leads to, from configurations alone."""
    with torch.device("meta"):
        weights = SanaTransformer(new).state_dict()
    for row in diffusers_transformer.table(new).kept:
        origin = origin_text(row.ours, plan, old.qk_norm)
        for key, part in zip(row.their_keys, row.to_theirs(weights[row.ours]), strict=True):
            yield PlannedKey(key=key, shape=tuple(part.shape), origin=origin)


def check_reshapable(found: ModelSpec) -> None:
    """Raise RequestError for a model that isn't a folder, or whose transformer is in int8."""
    source = found.transformer_source
    if not source.is_dir():
        raise RequestError(f"{source} is a transformer alone: convert it to a folder of a whole model first")
    if int8_layers(source):
        raise RequestError(f"{source} is in int8: take the model that it was made from")


def write_reshaped(
    found: ModelSpec,
    plan: DepthPlan,
    target: Path,
    *,
    qk_norm: bool = False,
    seed: int = 0,
    force: bool = False,
    max_shard_size: int | str = MAX_SHARD_SIZE,
) -> TransformerConfig:
    """Write the model `found` to `target` with the blocks of a plan, in the dtype that its weights have.

    seed: of fresh blocks. The folder appears, or changes, all at once. Returns the configuration of its transformer.
    Raises OutputError if the folder is occupied and `force` is false; RequestError as `check_reshapable`, and if the
    target is the model itself.
    """
    check_reshapable(found)
    check_parts(found)
    refuse_other(found, target, force)
    config = reshaped_config(found.transformer, plan, qk_norm)
    generator = torch.Generator().manual_seed(seed)
    weights = reshape_depth(_weights(found), config, plan, generator)
    write_derived(
        replace(found, transformer=config), target, weights, words=read_words(found) or (), about=found.about,
        force=force, max_shard_size=max_shard_size,
    )  # fmt: skip
    return config


def _weights(found: ModelSpec) -> dict[str, Tensor]:
    """Return the transformer's, by our names, in the dtype of the file and from there."""
    with torch.device("meta"):
        model = SanaTransformer(found.transformer)
    load_transformer(model, found.transformer, found.transformer_source, variant=found.variant, mapped=True)
    return model.state_dict()
