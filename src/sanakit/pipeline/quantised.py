"""A model folder with its transformer in int8: rounded once, two thirds of the bytes to keep and to load."""

from __future__ import annotations

from pathlib import Path

import torch

from sanakit.adapt import QuantReport, quantise
from sanakit.base.errors import RequestError
from sanakit.pipeline.merged import refuse_other, write_with_transformer
from sanakit.transformer import SanaTransformer
from sanakit.weights import INT8, ModelSpec, int8_layers, load_transformer
from sanakit.weights.save import MAX_SHARD_SIZE

__all__ = ["write_int8_folder"]


def write_int8_folder(
    found: ModelSpec,
    target: Path,
    *,
    force: bool = False,
    variant: str | None = None,
    max_shard_size: int | str = MAX_SHARD_SIZE,
) -> QuantReport:
    """Write the model `found` to `target`, wide linear layers of its transformer in int8, the rest copied as it is.

    Files that aren't part of a model are left out. The folder appears, or changes, all at once.
    variant: which weights of the transformer are rounded. max_shard_size: of its files, as in `save_weights`.
    Returns which layers were rounded, and why the others were not. Raises OutputError if the folder is occupied and
    `force` is false; ConfigError if a file leads out of the model; RequestError if the model isn't a folder, is in
    int8 already or has no layer to round.
    """
    source = found.transformer_source
    if not source.is_dir():
        raise RequestError(f"{source} is a transformer alone: convert it to a folder of a whole model first")
    if int8_layers(source):
        raise RequestError(f"{source} is in int8 already")
    refuse_other(found, target, force)
    with torch.device("meta"):
        model = SanaTransformer(found.transformer)
    load_transformer(
        model, found.transformer, source, variant=variant, mapped=True
    )  # read once, layer by layer
    report = quantise(model.requires_grad_(False))
    if not report.replaced:
        raise RequestError(f"{source} has no layer that is wide enough for int8 to save anything")
    write_with_transformer(found, target, model, force=force, layout=INT8, max_shard_size=max_shard_size)
    return report
