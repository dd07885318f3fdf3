"""LoRAs in a transformer that is being loaded: merged into its weights or beside them; and merged into a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sanakit.adapt.lora import add_adapter, merge_adapters, open_layers, replace_adapters
from sanakit.base.errors import RequestError
from sanakit.base.folders import new_folder
from sanakit.layers.lora import LowRank
from sanakit.pipeline.engine import Engine
from sanakit.pipeline.loras import LoRAFile, check_fit
from sanakit.transformer import SanaTransformer
from sanakit.weights import ModelSpec, int8_layers, load_transformer, save_transformer
from sanakit.weights.model_files import copy_known, is_model_file, known_files
from sanakit.weights.save import refuse_existing


def check_swap(swap: bool, engine: Engine) -> bool:
    """Return whether LoRAs are swapped. Raises RequestError if the engine holds on to the layers it has seen."""
    if swap and (engine.compile or engine.graphs):
        raise RequestError(
            f"no LoRA can be swapped in a model that runs {engine.name}: choose fast='auto' or 'int8'"
        )
    return swap


def apply_loras(model: nn.Module, loras: Sequence[LoRAFile], *, beside: bool, swap: bool = False) -> None:
    """Put LoRAs into a loaded transformer, in place, before it is brought into the form of an engine.

    beside: as adapters beside the weights, else merged into them, summed in float32. swap: `swap_loras` may follow.
    Raises RequestError as `add_adapter`.
    """
    if swap:
        open_layers(model)
    for name, lows in _placed(model, loras, cast=beside).items():
        add_adapter(model, name, lows)
    if not beside:
        merge_adapters(model)


def swap_loras(model: nn.Module, loras: Sequence[LoRAFile]) -> None:
    """Put LoRAs in the place of all others in a transformer that was loaded for it. Raises as `replace_adapters`."""
    replace_adapters(model, _placed(model, loras, cast=True))


def _placed(model: nn.Module, loras: Sequence[LoRAFile], *, cast: bool) -> dict[str, dict[str, LowRank]]:
    """Return the number of a LoRA -> what it changes, where the model is, and in its dtype if `cast`."""
    weight = next(part for part in model.parameters() if part.is_floating_point())
    dtype = weight.dtype if cast else None
    return {
        str(number): {name: low.to(weight.device, dtype) for name, low in one.low_ranks().items()}
        for number, one in enumerate(loras)
    }


def write_merged_folder(
    found: ModelSpec,
    target: Path,
    loras: Sequence[LoRAFile],
    *,
    force: bool = False,
    variant: str | None = None,
    **options: Any,
) -> None:
    """Write the model `found` to `target` with LoRAs merged into its transformer, the rest copied as it is.

    options: of the weights, as in `save_weights`. Raises OutputError if the folder is occupied and `force` is false;
    RequestError if a LoRA does not fit, or if the model is in int8 or isn't a folder of a whole model.
    """
    source = found.transformer_source
    if not source.is_dir():
        raise RequestError(f"{source} is a transformer alone: convert it to a folder of a whole model first")
    if int8_layers(source):
        raise RequestError(f"{source} is in int8: merge LoRAs into the model it was made from")
    check_fit(loras, found.transformer)
    refuse_other(found, target, force)
    with torch.device("meta"):
        model = SanaTransformer(found.transformer)
    load_transformer(model, found.transformer, source, variant=variant, mapped=True)
    apply_loras(model.requires_grad_(False), loras, beside=False)
    write_with_transformer(found, target, model, force=force, **options)


def refuse_other(found: ModelSpec, target: Path, force: bool) -> None:
    """Raise OutputError if the target is occupied, RequestError if it is the model itself."""
    refuse_existing(target, force)
    if target.resolve() == found.folder.resolve():
        raise RequestError(f"{target} is the model itself: choose another folder")


def write_with_transformer(
    found: ModelSpec, target: Path, model: nn.Module, *, force: bool = False, **options: Any
) -> None:
    """Write a model folder with this transformer and the other parts of `found`, as they are; all at once.

    options: as of `save_transformer`. Raises OutputError, and ConfigError if a file leads out of the model.
    """
    with new_folder(target, replace=force, ours=is_model_file) as draft:
        for name in known_files(found.folder):
            if not name.startswith("transformer/"):
                copy_known(found.folder / name, found.folder, draft / name)
        save_transformer(draft / "transformer", found.transformer, model.state_dict(), **options)
