"""Writing diffusers folders: sharded safetensors, configuration files, whole models, and models derived from another.

A component's folder, and a whole model's, is written beside its target and replaces it in one step.

A derived model has a transformer of its own (and perhaps a text encoder); its other parts are copied. Copies share
blocks with the base if the file system supports that; otherwise they take the space of an autoencoder and a text
encoder (16 MB for Toybox, 6.4 GB for a published SANA). Hard links would cost nothing, but writing into a file of the
export would then change the base: the hub's cache, or the model that ships.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sanakit.autoencoder import AutoencoderConfig
from sanakit.base.errors import OutputError, WeightsError
from sanakit.base.files import atomic_write, ensure_writable_folder
from sanakit.base.folders import new_folder
from sanakit.base.units import dtype_name
from sanakit.transformer import TransformerConfig
from sanakit.weights.about import About
from sanakit.weights.formats import diffusers_scheduler, gemma
from sanakit.weights.formats.fields import read_json, to_json
from sanakit.weights.formats.registry import AUTOENCODER, TRANSFORMER, FolderFormat
from sanakit.weights.model_files import check_own, copy_known, is_model_file, tokenizer_files, write_words
from sanakit.weights.model_index import EXTRA_FILE, index_config
from sanakit.weights.model_spec import ModelSpec, extra_config
from sanakit.weights.safetensors import byte_size, write_safetensors
from sanakit.weights.tensor_files import DIFFUSERS_STEM, TRANSFORMERS_STEM, weight_files

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
    """Pattern of the files that an earlier save of this stem and variant can have left."""
    tag = re.escape(f".{variant}" if variant else "")
    files = rf"{re.escape(stem)}{tag}(-\d{{5}}-of-\d{{5}})?\.safetensors"
    return re.compile(rf"config\.json|{files}|{re.escape(stem)}\.safetensors\.index{tag}\.json")


def save_transformer(
    folder: Path,
    config: TransformerConfig,
    model: nn.Module | Mapping[str, Tensor],
    *,
    layout: FolderFormat = TRANSFORMER,
    **options: Any,
) -> list[Path]:
    """Write a transformer folder (`layout`: a row of the registry) from our module or state dict.

    options: as in `save_weights`. Raises ConfigError for what the format can't express, WeightsError when model and
    config disagree, OutputError.
    """
    return save_network(folder, layout, config, model, options)


def save_autoencoder(
    folder: Path, config: AutoencoderConfig, model: nn.Module | Mapping[str, Tensor], **options: Any
) -> list[Path]:
    """Write a diffusers `AutoencoderDC` folder from our module or state dict; as `save_transformer`."""
    return save_network(folder, AUTOENCODER, config, model, options)


def save_network(
    folder: Path,
    layout: FolderFormat,
    config: object,
    model: nn.Module | Mapping[str, Tensor],
    options: Mapping[str, Any],
) -> list[Path]:
    """Write a component folder in a layout of the registry from our module or state dict; as `save_transformer`."""
    state = _state(model)
    tensors = layout.table(config, state.keys()).to_theirs(state)
    return save_component(folder, layout.write_config(config), tensors, options, layout.stem)


def save_text_encoder(
    folder: Path, config: Mapping[str, Any], model: nn.Module | Mapping[str, Tensor], **options: Any
) -> list[Path]:
    """Write a transformers `Gemma2Model` folder: `config` is its config.json; as `save_transformer`."""
    state = _state(model)
    dtype: torch.dtype = options.get("dtype") or next(iter(state.values())).dtype
    name = {"architectures": ["Gemma2Model"], "dtype": dtype_name(dtype)}
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

    Other files in the folder, such as other variants, stay.
    """
    stale = _stale(stem, options.get("variant"))
    with new_folder(folder, replace=True, ours=lambda name: bool(stale.fullmatch(name))) as draft:
        atomic_write(draft / "config.json", to_json(config))
        written = save_weights(draft, tensors, stem, **options)
    return [folder / "config.json", *(folder / path.name for path in written)]


def _state(model: nn.Module | Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    return model.state_dict() if isinstance(model, nn.Module) else model


def refuse_existing(path: Path, force: bool) -> None:
    """Raise OutputError if `path` is a file or a folder with something in it, unless forced."""
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
    words: Iterable[str] = (),
    dtype: torch.dtype | None = None,
    max_shard_size: int | str = MAX_SHARD_SIZE,
    variant: str | None = None,
    force: bool = False,
) -> Path:
    """Write a whole model to `spec.folder`, in the layout that diffusers' `SanaPipeline` loads.

    The modules (or state dicts) are ours; `tokenizer` is a folder whose files are copied. words: that the model has
    learnt, for `words.txt`; none, no file. A `sanakit.json` is added when the model differs from the defaults of a
    folder. Returns the folder. Raises OutputError when the folder is occupied and `force` is false, or can't be
    written; ConfigError and WeightsError as `save_transformer`.
    """
    folder = spec.folder
    refuse_existing(folder, force)
    options: dict[str, Any] = {"dtype": dtype, "max_shard_size": max_shard_size, "variant": variant}
    with new_folder(folder, replace=force, ours=is_model_file) as draft:
        save_transformer(draft / "transformer", spec.transformer, transformer, **options)
        save_autoencoder(draft / "vae", spec.autoencoder, autoencoder, **options)
        save_text_encoder(draft / "text_encoder", spec.text_config, text_encoder, **options)
        _copy_tokenizer(tokenizer, draft / "tokenizer")
        write_words(draft, words)
        write_settings(spec, draft)
    return folder


def write_settings(spec: ModelSpec, folder: Path) -> None:
    """Write all but the weights: schedule, sanakit.json, and, last, the index that makes a folder a model."""
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
        raise OutputError(f"{source} isn't a folder with tokenizer files")
    for path in tokenizer_files(source):
        copy_known(path, source.parent, target / path.name)


def _tokenizer_class(folder: Path) -> str:
    """Return the class named by the tokenizer's own configuration."""
    config = folder / "tokenizer_config.json"
    name = read_json(config).get("tokenizer_class") if config.exists() else None
    return name if isinstance(name, str) else "GemmaTokenizer"


def write_derived(
    spec: ModelSpec,
    folder: Path,
    transformer: nn.Module | Mapping[str, Tensor],
    *,
    text_encoder: Mapping[str, Tensor] | None = None,
    words: Iterable[str] = (),
    about: About | None = None,
    force: bool = False,
    **options: Any,
) -> Path:
    """Write a whole model to `folder`: this transformer and schedule, the other parts copied from `spec`.

    text_encoder: weights of one that was trained, too, for the configuration and the tokenizer of `spec`.
    words: that the model has learnt, for `words.txt`. about: what it says of itself; what `spec` says is left out, for
    it may not be true of another model. options: of the weights, as in `save_weights`. The folder appears, or changes,
    in one step. Returns it. Raises OutputError if it is occupied and `force` is false, or can't be written; ConfigError
    if a file of the other parts leads out of their model.
    """
    refuse_existing(folder, force)
    with new_folder(folder, replace=force, ours=is_model_file) as draft:
        save_transformer(draft / "transformer", spec.transformer, transformer, **options)
        if text_encoder is not None:
            save_text_encoder(draft / "text_encoder", spec.text_config, text_encoder, **options)
        for name, path in _parts(spec):
            if name != "text_encoder" or text_encoder is None:
                copy_known(path, path.parent.parent, draft / name / path.name)
        write_words(draft, words)
        write_settings(replace(spec, about=about), draft)
    return folder


def check_parts(spec: ModelSpec) -> None:
    """Raise ConfigError or WeightsError if `write_derived` could not copy the other parts."""
    for _, path in _parts(spec):
        check_own(path, path.parent.parent)


def _parts(spec: ModelSpec) -> list[tuple[str, Path]]:
    """Return the files of autoencoder, text encoder and tokenizer that loading reads: (name of the component, file)."""
    vae, text = spec.autoencoder_folder, spec.text_folder
    files = {
        "vae": [vae / "config.json", *weight_files(vae, DIFFUSERS_STEM)],
        "text_encoder": [text / "config.json", *weight_files(text, TRANSFORMERS_STEM)],
        "tokenizer": tokenizer_files(spec.tokenizer_folder),
    }
    return [(name, path) for name, paths in files.items() for path in paths]
