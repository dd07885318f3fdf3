"""Converting by what is there: a transformer or an autoencoder, from a file or a folder.

Autoencoders go between DC-AE's own names and diffusers' `AutoencoderDC`; transformers as `convert` says.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sanakit.autoencoder import AutoencoderConfig
from sanakit.base.errors import ConfigError, RequestError, WeightsError
from sanakit.transformer import TransformerConfig
from sanakit.weights.checkpoint import Checkpoint, open_checkpoint
from sanakit.weights.convert import diffusers_to_pth, pth_to_diffusers, pth_to_pth, write_checkpoint
from sanakit.weights.description import DESCRIPTION_CLASS, description_file
from sanakit.weights.formats import dcae_pth, diffusers_autoencoder
from sanakit.weights.formats.fields import STRICT, Fields, Reading, read_json, to_json
from sanakit.weights.identify import Hints
from sanakit.weights.read import DIFFUSERS_STEM, open_weights
from sanakit.weights.save import refuse_existing, save_autoencoder

__all__ = ["file_to_file", "file_to_folder", "folder_to_file"]

Config = TransformerConfig | AutoencoderConfig
Announce = Callable[[str], object]


def file_to_folder(
    source: Path,
    folder: Path,
    *,
    hints: Hints,
    announce: Announce,
    parts: Path | None,
    force: bool,
    **options: Any,
) -> Config:
    """A file of weights as a diffusers folder; options as in `save_weights`. Returns the configuration.

    Raises WeightsError, ConfigError, OutputError, and RequestError for hints that an autoencoder does not have.
    """
    opened = open_checkpoint(source, hints.weights)
    if not dcae_pth.is_dcae(opened.shapes):
        return pth_to_diffusers(
            source, folder, hints=hints, announce=announce, parts=parts, force=force, **options
        )
    if parts is not None:
        raise RequestError(f"{source} is an autoencoder: --parts is for a transformer's file.")
    refuse_existing(folder, force)
    opened, config = _autoencoder(source, hints, announce)
    save_autoencoder(folder, config, dcae_pth.table(config).to_ours(opened.tensors, str(source)), **options)
    return config


def file_to_file(
    source: Path, path: Path, *, hints: Hints, announce: Announce, force: bool, dtype: torch.dtype | None
) -> Config:
    """A file of weights as another one, plain names and one set of weights. As `file_to_folder`."""
    opened = open_checkpoint(source, hints.weights)
    if not dcae_pth.is_dcae(opened.shapes):
        return pth_to_pth(source, path, hints=hints, announce=announce, force=force, dtype=dtype)
    refuse_existing(path, force)
    opened, config = _autoencoder(source, hints, announce)
    table = dcae_pth.table(config)
    state = table.to_theirs(table.to_ours(opened.tensors, str(source)))
    write_checkpoint(path, state, _description(config), dtype=dtype)
    return config


def folder_to_file(
    source: Path,
    path: Path,
    *,
    dtype: torch.dtype | None,
    variant: str | None,
    force: bool,
    reading: Reading = STRICT,
) -> Config:
    """A diffusers transformer or autoencoder as a file with its authors' names; a whole model gives its transformer."""
    index = source / "config.json"
    if (source / "model_index.json").exists() or not index.exists():
        return diffusers_to_pth(source, path, dtype=dtype, variant=variant, force=force, reading=reading)
    data = read_json(index)
    if data.get("_class_name") != diffusers_autoencoder.CLASS:
        return diffusers_to_pth(source, path, dtype=dtype, variant=variant, force=force, reading=reading)
    refuse_existing(path, force)
    config = diffusers_autoencoder.from_config(data, str(index), reading)
    ours = diffusers_autoencoder.table(config).to_ours(
        open_weights(source, DIFFUSERS_STEM, variant), str(source)
    )
    write_checkpoint(path, dcae_pth.table(config).to_theirs(ours), _description(config), dtype=dtype)
    return config


def _autoencoder(source: Path, hints: Hints, announce: Announce) -> tuple[Checkpoint, AutoencoderConfig]:
    """An opened file, its checksums compared, and its configuration: given, from beside it, or published."""
    if hints.numbers or hints.like_model is not None:
        raise RequestError(f"{source} is an autoencoder: describe it by --config FILE alone.")
    opened = open_checkpoint(source, hints.weights, verify=True)
    for note in opened.notes:
        announce(note)
    file = hints.config or description_file(source)
    if hints.config is None and not file.exists():
        return opened, dcae_pth.infer_config(opened.shapes, str(source))
    config = _read_config(file)
    seen = dcae_pth.read_shapes(opened.shapes, str(source))
    if not dcae_pth.fits(config, seen):
        raise ConfigError(f"{file} does not describe {source}: its stages are not those of the tensors")
    return opened, config


def _read_config(file: Path) -> AutoencoderConfig:
    """From the config.json of an `AutoencoderDC` (its folder will do), or from what is written beside a file."""
    file = file / "config.json" if file.is_dir() else file
    data = read_json(file)
    if data.get("_class_name") == DESCRIPTION_CLASS:
        inner = Fields(data, {"autoencoder": None}, str(file)).values["autoencoder"]
        if not isinstance(inner, dict):
            raise WeightsError(f"{file} describes no autoencoder")
        data = inner
    return diffusers_autoencoder.from_config(data, str(file))


def _description(config: AutoencoderConfig) -> bytes:
    return to_json({"_class_name": DESCRIPTION_CLASS, "autoencoder": diffusers_autoencoder.to_config(config)})
