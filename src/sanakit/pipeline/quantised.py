"""A model folder with its transformer in int8: rounded once, two thirds of the bytes to keep and to load."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from sanakit.adapt import QuantReport, quantise
from sanakit.base.errors import RequestError
from sanakit.base.files import atomic_write, ensure_writable_folder
from sanakit.transformer import SanaTransformer
from sanakit.weights import Descriptor, holds_int8, load_transformer, save_int8
from sanakit.weights.save import MAX_SHARD_SIZE, refuse_existing

__all__ = ["write_int8_folder"]

_INDEX = "model_index.json"


def write_int8_folder(
    found: Descriptor,
    target: Path,
    *,
    force: bool = False,
    variant: str | None = None,
    max_shard_size: int | str = MAX_SHARD_SIZE,
) -> QuantReport:
    """Write the model `found` to `target`, wide linear layers of its transformer in int8, the rest copied as it is.

    variant: which weights of the transformer are rounded. max_shard_size: of its files, as in `save_weights`.
    Returns which layers were rounded, and why the others were not. Raises OutputError when the folder is occupied and
    `force` is false; RequestError when the model is no folder, is in int8 already or has no layer to round.
    """
    source = found.transformer_source
    if not source.is_dir():
        raise RequestError(f"{source} is a transformer alone: convert it to a folder of a whole model first.")
    if holds_int8(source):
        raise RequestError(f"{source} is in int8 already.")
    refuse_existing(target, force)
    if target.resolve() == found.folder.resolve():
        raise RequestError(f"{target} is the model itself: choose another folder for its int8 form.")
    with torch.device("meta"):
        model = SanaTransformer(found.transformer)
    load_transformer(
        model, found.transformer, source, variant=variant, mapped=True
    )  # read once, layer by layer
    report = quantise(model.requires_grad_(False))
    if not report.replaced:
        raise RequestError(f"{source} has no layer that is wide enough for int8 to save anything.")
    # A folder without an index is no model, so half a copy is never mistaken for one.
    (target / _INDEX).unlink(missing_ok=True)
    for file in sorted(found.folder.rglob("*")):
        place = file.relative_to(found.folder)
        if file.is_file() and source not in file.parents and place.name != _INDEX:
            _copy(file, target / place)
    save_int8(target / "transformer", found.transformer, model.state_dict(), max_shard_size)
    _copy(found.folder / _INDEX, target / _INDEX)
    return report


def _copy(file: Path, target: Path) -> None:
    ensure_writable_folder(target.parent)
    atomic_write(target, lambda draft: shutil.copyfile(file, draft))
