"""A model folder with its transformer in int8: rounded once, two thirds of the bytes to keep and to load."""

from __future__ import annotations

from pathlib import Path

import torch

from sanakit.adapt import QuantReport, quantise
from sanakit.base.errors import RequestError
from sanakit.base.folders import new_folder
from sanakit.transformer import SanaTransformer
from sanakit.weights import INT8, ModelSpec, int8_layers, load_transformer, save_transformer
from sanakit.weights.model_files import copy_known, is_model_file, known_files
from sanakit.weights.save import MAX_SHARD_SIZE, refuse_existing

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
    refuse_existing(target, force)
    if target.resolve() == found.folder.resolve():
        raise RequestError(f"{target} is the model itself: choose another folder for its int8 form")
    with torch.device("meta"):
        model = SanaTransformer(found.transformer)
    load_transformer(
        model, found.transformer, source, variant=variant, mapped=True
    )  # read once, layer by layer
    report = quantise(model.requires_grad_(False))
    if not report.replaced:
        raise RequestError(f"{source} has no layer that is wide enough for int8 to save anything")
    with new_folder(target, replace=force, ours=is_model_file) as draft:
        for name in known_files(found.folder):
            if not name.startswith("transformer/"):
                copy_known(found.folder / name, found.folder, draft / name)
        state = model.state_dict()
        save_transformer(
            draft / "transformer", found.transformer, state, layout=INT8, max_shard_size=max_shard_size
        )
    return report
