"""Converting networks between files with their authors' names and diffusers folders, both ways.

Bit-equal unless a dtype is asked for. What a file of weights can't hold is written beside it, as `x.json`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sanakit.base.errors import OutputError, WeightsError
from sanakit.base.files import atomic_write, ensure_writable_folder
from sanakit.transformer import TransformerConfig
from sanakit.weights.checkpoint import SUFFIXES, Checkpoint, open_checkpoint
from sanakit.weights.derive import write_derived
from sanakit.weights.description import Description, description_file, description_json
from sanakit.weights.formats import diffusers_transformer, sana_pth
from sanakit.weights.formats.fields import STRICT, Reading, read_json
from sanakit.weights.identify import Hints, describe_file
from sanakit.weights.load import open_transformer
from sanakit.weights.model_spec import describe_folder, read_model_spec
from sanakit.weights.safetensor import write_safetensors
from sanakit.weights.save import MAX_SHARD_SIZE, refuse_existing, save_transformer

__all__ = ["diffusers_to_pth", "pth_to_diffusers", "pth_to_pth", "write_checkpoint"]

Announce = Callable[[str], object]


def _silent(text: str) -> None:
    """The default of `announce`."""


def pth_to_diffusers(
    source: Path,
    folder: Path,
    *,
    dtype: torch.dtype | None = None,
    hints: Hints | None = None,
    cross_heads: int | None = None,
    sample_size: int | None = None,
    position_scale: float | None = None,
    parts: Path | None = None,
    max_shard_size: int | str = MAX_SHARD_SIZE,
    variant: str | None = None,
    force: bool = False,
    announce: Announce = _silent,
) -> TransformerConfig:
    """Write the transformer of a file of weights as a diffusers component folder (config.json and safetensors).

    What a file does not tell comes from `hints` (the three numbers are some of them), from `x.json` beside it or from
    the published models, as `describe_file` says; announce is told what was taken for granted. parts: the folder of a
    model that gives the rest, for a whole model instead of a component. dtype None keeps the file's. The file's
    checksums are compared first; tensors go from file to file one by one. Returns the configuration, in the dialect of
    the description; note that diffusers will read the folder in its own.
    Raises WeightsError, ConfigError, and OutputError when the folder is occupied.
    """
    refuse_existing(folder, force)
    numbers = {"cross_heads": cross_heads, "sample_size": sample_size, "position_scale": position_scale}
    hints = hints or Hints(**numbers)  # type: ignore[arg-type]
    opened, found = _described(source, hints, announce)
    ours = sana_pth.table(found.transformer).to_ours(opened.tensors, str(source))
    options: dict[str, Any] = {"dtype": dtype, "max_shard_size": max_shard_size, "variant": variant}
    if parts is None:
        save_transformer(folder, found.transformer, ours, **options)
    else:
        write_derived(read_model_spec(source, parts=parts, hints=hints), folder, ours, force=force, **options)
    return found.transformer


def _described(source: Path, hints: Hints, announce: Announce) -> tuple[Checkpoint, Description]:
    """An opened file, its checksums compared, and what is known of its network."""
    opened = open_checkpoint(source, hints.weights, verify=True)
    found, notes = describe_file(source, opened.shapes, hints, describe_folder)
    for note in (*opened.notes, *notes):
        announce(note)
    return opened, found


def diffusers_to_pth(
    source: Path,
    path: Path,
    *,
    dtype: torch.dtype | None = None,
    null_caption: Tensor | None = None,
    variant: str | None = None,
    force: bool = False,
    reading: Reading = STRICT,
) -> TransformerConfig:
    """Write a diffusers transformer (its folder, or that of a whole model) as a file with the official names.

    The suffix decides: `.safetensors`, else `torch.save`'s format. What it can't hold is written beside it as
    `x.json`. null_caption, [300, text_width], becomes `y_embedder.y_embedding`: the official code replaces it on
    loading and does without, so the default is to leave it out, as the unused positional buffer is. Returns the
    configuration. Raises WeightsError, ConfigError, and OutputError when the file exists.
    """
    refuse_existing(path, force)
    found, folder = _of_folder(source, reading)
    config = found.transformer
    ours = dict(open_transformer(config, folder, variant))
    state = sana_pth.table(config).to_theirs(ours, str(folder))
    if null_caption is not None:
        if null_caption.dim() != 2 or null_caption.shape[1] != config.text_width:
            raise WeightsError(
                f"null_caption is {list(null_caption.shape)}, but should be [tokens, {config.text_width}]"
            )
        state[sana_pth.NULL_CAPTION] = null_caption
    write_checkpoint(path, state, description_json(found), dtype=dtype)
    return config


def _of_folder(source: Path, reading: Reading) -> tuple[Description, Path]:
    """The description of a model's or a transformer's folder, and the folder of the transformer."""
    if (source / "model_index.json").exists():
        return describe_folder(source, reading), source / "transformer"
    where = source / "config.json"
    config = diffusers_transformer.from_config(read_json(where), str(where), reading)
    return Description(transformer=config, source=str(source)), source


def pth_to_pth(
    source: Path,
    path: Path,
    *,
    dtype: torch.dtype | None = None,
    hints: Hints | None = None,
    force: bool = False,
    announce: Announce = _silent,
) -> TransformerConfig:
    """Write one file of weights as another: of a trainer's file only the weights, under their plain names.

    As `pth_to_diffusers` and `diffusers_to_pth` in all else.
    """
    refuse_existing(path, force)
    opened, found = _described(source, hints or Hints(), announce)
    table = sana_pth.table(found.transformer)
    state = table.to_theirs(table.to_ours(opened.tensors, str(source)))
    write_checkpoint(path, state, description_json(found), dtype=dtype)
    return found.transformer


def write_checkpoint(
    path: Path, state: Mapping[str, Tensor], description: bytes, *, dtype: torch.dtype | None = None
) -> None:
    """Write a file of weights, `.safetensors` or `torch.save`'s, and its description beside it.

    Equal input gives equal bytes. Raises OutputError when a path can't be written, or when what lies at `x.json`
    describes something else.
    """
    beside = description_file(path)
    keep = _check_beside(path, beside, description)
    ensure_writable_folder(path.absolute().parent)
    if not keep:
        beside.unlink(missing_ok=True)  # the old description must not be found beside the new weights
    if path.suffix.lower() == ".safetensors":
        write_safetensors(path, state, dtype)
    else:
        _write_torch(path, state, dtype)
    if not keep:
        atomic_write(beside, description)


def _check_beside(path: Path, beside: Path, description: bytes) -> bool:
    """Whether the description is there already. Raises OutputError when another one, or something else, is."""
    if not beside.exists():
        return False
    try:
        if beside.read_bytes() == description:
            return True
        ours = b'"SanakitCheckpoint"' in beside.read_bytes()
    except OSError as error:
        raise OutputError(f"{beside} can't be read: {error.strerror or error}") from error
    others = [path.with_suffix(suffix) for suffix in SUFFIXES if suffix != path.suffix]
    if not ours or any(other.exists() for other in others) or not path.exists():
        raise OutputError(
            f"{beside}, where the description of {path.name} belongs, exists already: choose another name"
        )
    return False


def _write_torch(path: Path, state: Mapping[str, Tensor], dtype: torch.dtype | None) -> None:
    # A view would drag its whole file along: torch.save writes storages, not tensors.
    cast = {
        key: tensor.detach().to(tensor.dtype if dtype is None else dtype) for key, tensor in state.items()
    }
    own = {key: tensor.clone() for key, tensor in cast.items()}

    def write(draft: Path) -> None:
        with draft.open("wb") as file:  # by its name, the draft's would become part of the content
            torch.save({"state_dict": own}, file)

    atomic_write(path, write)
