"""Converting networks between files with their authors' names and diffusers folders, both ways.

Bit-equal unless a dtype is asked for. Facts that a file of weights can't hold are written beside it, as `x.json`.
Which network a source holds, and in which format, is looked up in `formats.registry`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sanakit.autoencoder import AutoencoderConfig
from sanakit.base.errors import OutputError, RequestError, WeightsError
from sanakit.base.files import atomic_write, ensure_writable_folder
from sanakit.transformer import ControlConfig, TransformerConfig
from sanakit.weights.checkpoint import SUFFIXES, Checkpoint, open_checkpoint
from sanakit.weights.control import save_control
from sanakit.weights.description import (
    Description,
    autoencoder_description_json,
    description_file,
    description_json,
)
from sanakit.weights.formats import sana_control_pth, sana_pth
from sanakit.weights.formats.fields import STRICT, UnknownFields, read_json
from sanakit.weights.formats.registry import (
    INT8,
    FileFormat,
    Network,
    config_format,
    file_format,
    file_format_for,
    folder_format,
)
from sanakit.weights.identify import Hints, describe_autoencoder, describe_control, describe_file
from sanakit.weights.model_spec import describe_folder, read_model_spec
from sanakit.weights.safetensors import write_safetensors
from sanakit.weights.save import (
    MAX_SHARD_SIZE,
    refuse_existing,
    save_autoencoder,
    save_transformer,
    write_derived,
)
from sanakit.weights.tensor_files import open_weights

Config = TransformerConfig | AutoencoderConfig | ControlConfig
Announce = Callable[[str], object]

_NAMES: dict[Network, str] = {"autoencoder": "an autoencoder", "control": "a ControlNet"}


def _silent(text: str) -> None:
    """Say nothing: the default of `announce`."""


def file_to_folder(
    source: Path,
    folder: Path,
    *,
    dtype: torch.dtype | None = None,
    hints: Hints | None = None,
    parts: Path | None = None,
    max_shard_size: int | str = MAX_SHARD_SIZE,
    variant: str | None = None,
    force: bool = False,
    announce: Announce = _silent,
) -> Config:
    """Write a file of weights as a diffusers component folder (config.json and safetensors).

    Facts that a file doesn't state come from `hints`, from `x.json` beside it or from the published models, see
    `describe_file`; announce is called with what was assumed. parts: the folder of a model that provides the rest, for
    a whole model instead of a component. dtype None keeps the file's. The file's checksums are compared first; tensors
    go from file to file one by one. Returns the configuration, in the dialect of the description; note that diffusers
    will read the folder in its own. Raises WeightsError, ConfigError, OutputError if the folder is occupied, and
    RequestError for hints or parts that an autoencoder does not have.
    """
    hints = hints or Hints()
    network = file_format(open_checkpoint(source, hints.weights).shapes).network
    if network != "transformer" and parts is not None:
        raise RequestError(f"{source} is {_NAMES[network]}: --parts is for a transformer's file")
    refuse_existing(folder, force)
    opened, row, config, _ = _identified(source, hints, announce)
    ours = row.table(config).to_ours(opened.tensors, str(source))
    options: dict[str, Any] = {"dtype": dtype, "max_shard_size": max_shard_size, "variant": variant}
    if parts is not None:
        write_derived(read_model_spec(source, parts=parts, hints=hints), folder, ours, force=force, **options)
    elif isinstance(config, AutoencoderConfig):
        save_autoencoder(folder, config, ours, **options)
    elif isinstance(config, ControlConfig):
        config, ours = sana_control_pth.in_diffusers_wiring(config, ours)
        announce(
            f"{folder} is wired as in diffusers: to compute what the official code does, use {source} itself."
        )
        save_control(folder, config, ours, **options)
    else:
        save_transformer(folder, config, ours, **options)
    return config


def file_to_file(
    source: Path,
    path: Path,
    *,
    dtype: torch.dtype | None = None,
    hints: Hints | None = None,
    force: bool = False,
    announce: Announce = _silent,
) -> Config:
    """Write one file of weights as another: plain names, and of a trainer's file only one set of weights.

    As `file_to_folder` and `folder_to_file` in all else.
    """
    refuse_existing(path, force)
    opened, row, config, description = _identified(source, hints or Hints(), announce)
    _refuse_control(row.network, source)
    table = row.table(config)
    state = table.to_theirs(table.to_ours(opened.tensors, str(source)))
    write_checkpoint(path, state, description, dtype=dtype)
    return config


def folder_to_file(
    source: Path,
    path: Path,
    *,
    dtype: torch.dtype | None = None,
    null_caption: Tensor | None = None,
    variant: str | None = None,
    force: bool = False,
    unknown: UnknownFields = STRICT,
) -> Config:
    """Write a component folder, or the transformer of a whole model, as a file with its authors' names.

    The suffix decides: `.safetensors`, else `torch.save`'s format. Facts that it can't hold are written beside it as
    `x.json`. null_caption, [300, text_width], becomes `y_embedder.y_embedding` of a transformer: the official code
    replaces it on loading, so by default it is left out, as the unused positional buffer is. Returns the
    configuration. Raises WeightsError, ConfigError, and OutputError if the file exists.
    """
    refuse_existing(path, force)
    network, config, folder, description = _read_folder(source, unknown)
    _refuse_control(network, source)
    layout = folder_format(network, folder)
    if layout is INT8:
        raise WeightsError(
            f"{folder} is in int8, which a file can't hold: convert the model it was made from"
        )
    weights = open_weights(folder, layout.stem, variant)
    ours = layout.table(config, weights.keys()).to_ours(weights, str(folder))
    state = file_format_for(network).table(config).to_theirs(ours, str(folder))
    if null_caption is not None and isinstance(config, TransformerConfig):
        state |= _null_caption(null_caption, config)
    write_checkpoint(path, state, description, dtype=dtype)
    return config


def _refuse_control(network: Network, source: Path) -> None:
    if network == "control":
        raise WeightsError(
            f"{source} is a ControlNet, whose official file holds all of its base network too: it can be read, and a "
            "ControlNet is written as a folder"
        )


def _identified(
    source: Path, hints: Hints, announce: Announce
) -> tuple[Checkpoint, FileFormat, Config, bytes]:
    """Return an opened file with verified checksums, its format, its configuration, and the content of its `x.json`."""
    opened = open_checkpoint(source, hints.weights, verify=True)
    row = file_format(opened.shapes)
    if row.network == "autoencoder":
        for note in opened.notes:
            announce(note)
        config = describe_autoencoder(opened, hints)
        return opened, row, config, autoencoder_description_json(config)
    if row.network == "control":
        return opened, row, describe_control(opened, hints, describe_folder), b""
    found, notes = describe_file(source, opened.shapes, hints, describe_folder)
    for note in (*opened.notes, *notes, *row.table(found.transformer).lost(opened.shapes.keys())):
        announce(note)
    return opened, row, found.transformer, description_json(found)


def _read_folder(source: Path, unknown: UnknownFields) -> tuple[Network, Config, Path, bytes]:
    """Network, configuration, component folder and `x.json` of a component folder or a whole model."""
    if (source / "model_index.json").exists():
        found = describe_folder(source, unknown)
        return "transformer", found.transformer, source / "transformer", description_json(found)
    where = source / "config.json"
    data = read_json(where)
    layout = config_format(data)
    config = layout.read_config(data, str(where), unknown)
    if layout.network == "autoencoder":
        return layout.network, config, source, autoencoder_description_json(config)
    if layout.network == "control":
        return layout.network, config, source, b""
    return (
        layout.network,
        config,
        source,
        description_json(Description(transformer=config, source=str(source))),
    )


def _null_caption(states: Tensor, config: TransformerConfig) -> dict[str, Tensor]:
    if states.dim() != 2 or states.shape[1] != config.text_width:
        raise WeightsError(
            f"null_caption is {list(states.shape)}, but should be [tokens, {config.text_width}]"
        )
    return {sana_pth.NULL_CAPTION: states}


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
    """Return whether the description is there already. Raises OutputError when another one, or something else, is."""
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
