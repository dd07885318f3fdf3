"""Writing diffusers folders: sharded safetensors, configuration files, the whole model.

A component's folder, and a whole model's, is written beside its place and takes it all at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sanakit.autoencoder import AutoencoderConfig
from sanakit.base.errors import OutputError, WeightsError
from sanakit.base.files import atomic_write, ensure_writable_folder
from sanakit.base.folders import new_folder
from sanakit.transformer import TransformerConfig
from sanakit.weights.formats import diffusers_autoencoder, diffusers_scheduler, diffusers_transformer, gemma
from sanakit.weights.formats.fields import read_json, to_json
from sanakit.weights.known import copy_known, is_model_file, tokenizer_files
from sanakit.weights.model_spec import EXTRA_FILE, ModelSpec, extra_config, index_config
from sanakit.weights.read import DIFFUSERS_STEM, TRANSFORMERS_STEM
from sanakit.weights.safetensor import byte_size, write_safetensors

__all__ = [
    "MAX_SHARD_SIZE",
    "refuse_existing",
    "save_autoencoder",
    "save_component",
    "save_text_encoder",
    "save_transformer",
    "save_weights",
    "write_folder",
    "write_settings",
]

MAX_SHARD_SIZE = "5GB"
_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def save_weights(
    folder: Path,
    tensors: Mapping[str, Tensor],
    stem: str = DIFFUSERS_STEM,
    *,
    dtype: torch.dtype | None = None,
    max_shard_size: int | str = MAX_SHARD_SIZE,
    variant: str | None = None,
) -> list[Path]:
    """Write tensors under their names, as one file or as shards of at most `max_shard_size` with an index.

    dtype casts floating tensors one by one while writing. Files of an earlier save of the same stem and variant are
    removed at the end. Returns the files written. Raises OutputError, and WeightsError for a malformed size.
    """
    ensure_writable_folder(folder)
    shards = _split(tensors, _parse_size(max_shard_size), dtype)
    tag = f".{variant}" if variant else ""
    names = [f"{stem}{tag}-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    names = names if len(shards) > 1 else [f"{stem}{tag}.safetensors"]
    written = [folder / name for name in names]
    for path, keys in zip(written, shards, strict=True):
        write_safetensors(path, {key: tensors[key] for key in keys}, dtype)
    if len(shards) > 1:
        total = sum(byte_size(tensor, dtype) for tensor in tensors.values())
        weight_map = {key: name for name, keys in zip(names, shards, strict=True) for key in keys}
        index = folder / f"{stem}.safetensors.index{tag}.json"
        atomic_write(index, to_json({"metadata": {"total_size": total}, "weight_map": weight_map}))
        written.append(index)
    stale = _stale(stem, variant)
    for path in folder.iterdir():
        if stale.fullmatch(path.name) and path.name != "config.json" and path not in written:
            path.unlink()
    return written


def _split(tensors: Mapping[str, Tensor], limit: int, dtype: torch.dtype | None) -> list[list[str]]:
    """Names in order, a new shard whenever the next tensor would not fit (one tensor may exceed the limit alone)."""
    shards: list[list[str]] = [[]]
    used = 0
    for key, tensor in tensors.items():
        size = byte_size(tensor, dtype)
        if shards[-1] and used + size > limit:
            shards.append([])
            used = 0
        shards[-1].append(key)
        used += size
    return shards


def _parse_size(size: int | str) -> int:
    """Bytes: `5GB` is 5 * 10**9, `1GiB` is 2**30."""
    match = re.fullmatch(r"(\d+)\s*([KMG]i?B)?", str(size), re.IGNORECASE)
    if not match or not int(match[1]):
        raise WeightsError(f"max_shard_size is {size!r}, but should be like 5GB or 500MB")
    return int(match[1]) * (_UNITS[match[2].upper()] if match[2] else 1)


def _stale(stem: str, variant: str | None) -> re.Pattern[str]:
    """The names that an earlier save of this stem and variant can have left."""
    tag = re.escape(f".{variant}" if variant else "")
    files = rf"{re.escape(stem)}{tag}(-\d{{5}}-of-\d{{5}})?\.safetensors"
    return re.compile(rf"config\.json|{files}|{re.escape(stem)}\.safetensors\.index{tag}\.json")


def save_transformer(
    folder: Path, config: TransformerConfig, model: nn.Module | Mapping[str, Tensor], **options: Any
) -> list[Path]:
    """Write a diffusers transformer folder from our module or state dict; options as in `save_weights`.

    Raises ConfigError for what the format can't hold, WeightsError when model and config disagree, OutputError.
    """
    table, config_json = diffusers_transformer.table(config), diffusers_transformer.to_config(config)
    return save_component(folder, config_json, table.to_theirs(_state(model)), options)


def save_autoencoder(
    folder: Path, config: AutoencoderConfig, model: nn.Module | Mapping[str, Tensor], **options: Any
) -> list[Path]:
    """Write a diffusers `AutoencoderDC` folder from our module or state dict; as `save_transformer`."""
    config_json, table = diffusers_autoencoder.to_config(config), diffusers_autoencoder.table(config)
    return save_component(folder, config_json, table.to_theirs(_state(model)), options)


def save_text_encoder(
    folder: Path, config: Mapping[str, Any], model: nn.Module | Mapping[str, Tensor], **options: Any
) -> list[Path]:
    """Write a transformers `Gemma2Model` folder: `config` is its config.json; as `save_transformer`."""
    state = _state(model)
    dtype: torch.dtype = options.get("dtype") or next(iter(state.values())).dtype
    name = {"architectures": ["Gemma2Model"], "dtype": str(dtype).removeprefix("torch.")}
    tensors = gemma.table(list(state)).to_theirs(state)
    return save_component(folder, {**config, **name}, tensors, options, TRANSFORMERS_STEM)


def save_component(
    folder: Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    options: Mapping[str, Any],
    stem: str = DIFFUSERS_STEM,
) -> list[Path]:
    """Write config.json and the tensors of one component, both at once; options as in `save_weights`.

    What else lies in the folder, such as other variants, stays.
    """
    stale = _stale(stem, options.get("variant"))
    with new_folder(folder, replace=True, ours=lambda name: bool(stale.fullmatch(name))) as draft:
        atomic_write(draft / "config.json", to_json(config))
        written = save_weights(draft, tensors, stem, **options)
    return [folder / "config.json", *(folder / path.name for path in written)]


def _state(model: nn.Module | Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    return model.state_dict() if isinstance(model, nn.Module) else model


def refuse_existing(path: Path, force: bool) -> None:
    """Raises OutputError when `path` is a file or a folder with something in it, unless forced."""
    occupied = any(path.iterdir()) if path.is_dir() else path.exists()
    if occupied and not force:
        raise OutputError(f"{path} exists already: choose another place, or force to replace it")


def write_folder(
    spec: ModelSpec,
    *,
    transformer: nn.Module | Mapping[str, Tensor],
    autoencoder: nn.Module | Mapping[str, Tensor],
    text_encoder: nn.Module | Mapping[str, Tensor],
    tokenizer: Path,
    dtype: torch.dtype | None = None,
    max_shard_size: int | str = MAX_SHARD_SIZE,
    variant: str | None = None,
    force: bool = False,
) -> Path:
    """Write a whole model to `spec.folder`, in the layout that diffusers' `SanaPipeline` loads.

    The modules (or state dicts) are ours; `tokenizer` is a folder whose files are copied. A `sanakit.json` is added
    when the model differs from what a plain folder means. Returns the folder. Raises OutputError when the folder is
    occupied and `force` is false, or can't be written; ConfigError and WeightsError as `save_transformer`.
    """
    folder = spec.folder
    refuse_existing(folder, force)
    options = {"dtype": dtype, "max_shard_size": max_shard_size, "variant": variant}
    with new_folder(folder, replace=force, ours=is_model_file) as draft:
        save_transformer(draft / "transformer", spec.transformer, transformer, **options)
        save_autoencoder(draft / "vae", spec.autoencoder, autoencoder, **options)
        save_text_encoder(draft / "text_encoder", spec.text_config, text_encoder, **options)
        _copy_tokenizer(tokenizer, draft / "tokenizer")
        write_settings(spec, draft)
    return folder


def write_settings(spec: ModelSpec, folder: Path) -> None:
    """Write what is no weights: schedule, what only sanakit reads, and, last, the index that makes a folder a model."""
    scheduler = ensure_writable_folder(folder / "scheduler") / "scheduler_config.json"
    atomic_write(scheduler, to_json(diffusers_scheduler.to_config(spec.schedule)))
    extra = extra_config(spec)
    if extra is not None:
        atomic_write(folder / EXTRA_FILE, to_json(extra))
    else:
        (folder / EXTRA_FILE).unlink(missing_ok=True)
    index = index_config(spec.kind, spec.schedule, _tokenizer_class(folder / "tokenizer"), spec.pag)
    atomic_write(folder / "model_index.json", to_json(index))


def _copy_tokenizer(source: Path, target: Path) -> None:
    if not source.is_dir():
        raise OutputError(f"{source} is no folder with tokenizer files")
    for path in tokenizer_files(source):
        copy_known(path, source.parent, target / path.name)


def _tokenizer_class(folder: Path) -> str:
    """The class named by the tokenizer's own configuration."""
    config = folder / "tokenizer_config.json"
    name = read_json(config).get("tokenizer_class") if config.exists() else None
    return name if isinstance(name, str) else "GemmaTokenizer"
