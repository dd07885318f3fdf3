"""Files of hub repositories: which ones loading needs, announced before they are downloaded, found again in the cache.

Two layouts: diffusers' (`needed_files`) and transformers' (`snapshot_files`). No code of a repository is executed.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants

from sanakit.base.errors import ModelNotFoundError
from sanakit.base.units import size_text
from sanakit.weights.published import AUTOENCODERS, PUBLISHED, Published, PublishedAutoencoder
from sanakit.weights.tensor_files import DIFFUSERS_STEM, STEMS, variants

_DISK = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EROFS, errno.EACCES, errno.EPERM)
_SMALL = re.compile(
    r"model_index\.json|sanakit\.json|words\.txt|LICENSE[^/]*|(?:tokenizer|scheduler)/[^/]+|\w+/config\.json"
)
_ROOT_SMALL = re.compile(r"[^/]+\.(?:json|txt|model|jinja|tiktoken)")
_ROOT_WEIGHTS = re.compile(r"model(?:-\d{5}-of-\d{5})?\.safetensors")

LORA_FILE = "pytorch_lora_weights.safetensors"
"""The name by which diffusers finds a LoRA in a folder."""

LORA_NAMES = (LORA_FILE, "adapter_model.safetensors")
"""The files that diffusers and peft write, in the order in which they are looked for."""


def fetch(
    repo: str,
    announce: Callable[[str], object],
    revision: str | None,
    choose: Callable[[dict[str, int]], dict[str, int]],
    *,
    index: str | tuple[str, ...],
) -> tuple[Path | None, str]:
    """Return the local folder of a hub model, online if possible, else from the cache; and why not online.

    choose: selects from all files with their sizes. index: the file (the first of several) that is in the cache gives
    the folder.
    """
    names = (index,) if isinstance(index, str) else index
    why = "the hub is offline (HF_HUB_OFFLINE) and it is not in the cache"
    if not constants.HF_HUB_OFFLINE:
        try:
            info = huggingface_hub.HfApi().model_info(repo, revision=revision, files_metadata=True)
        except Exception as error:  # noqa: BLE001  network failures of the client have no common base class
            why = failure_reason(error)
        else:
            files = choose({file.rfilename: file.size or 0 for file in info.siblings or ()})
            missing = {name: size for name, size in files.items() if not cached_file(repo, name, info.sha)}
            announce_download(repo, missing, announce)
            whole = None if missing else _first_cached(repo, names, info.sha)
            return _downloaded(repo, revision, files, whole), why
    place = _first_cached(repo, names, revision)
    return (None if place is None else place.parent), why


def _first_cached(repo: str, names: Iterable[str], revision: str | None) -> Path | None:
    return next((path for name in names if (path := cached_file(repo, name, revision)) is not None), None)


def _downloaded(repo: str, revision: str | None, files: Iterable[str], whole: Path | None) -> Path:
    """Return the folder of downloaded files. whole: the cached index if all are cached, so failing is harmless."""
    try:
        return download(repo, revision, files)
    except ModelNotFoundError:
        if whole is None:
            raise
        return whole.parent


def failure_reason(error: Exception) -> str:
    """Return why the hub failed, in words."""
    kind = type(error).__name__
    refusal = _cache_refusal(error)
    if refusal is not None:
        return (
            f"the hub's cache {constants.HF_HUB_CACHE} can't be written ({refusal}): "
            "free some room there, or set HF_HOME to another folder"
        )
    known = {
        "RepositoryNotFoundError": "the hub has no such repository (or it is private)",
        "GatedRepoError": "the hub wants you to accept its terms and log in first",
        "RevisionNotFoundError": "the hub has no such revision",
    }
    return known.get(kind, f"the hub did not answer ({kind})")


def _cache_refusal(error: BaseException | None) -> str | None:
    """Find the disk error behind a failed download, if any; clients wrap it, and the one in Rust has only its text."""
    while error is not None:
        number = getattr(error, "errno", None)
        if number in _DISK:
            return os.strerror(number)
        words = next((os.strerror(known) for known in _DISK if os.strerror(known) in str(error)), None)
        if words is not None:
            return words
        error = error.__cause__ or error.__context__
    return None


def needed_files(repo: str, sizes: Mapping[str, int], variant: str | None) -> dict[str, int]:
    """Return files of a repository that loading reads, with their bytes: configurations and one variant of the weights.

    A component without the variant gives its plain weights, or its only ones. Raises ModelNotFoundError when the
    repository is not in the diffusers layout.
    """
    needed = {name: size for name, size in sizes.items() if _SMALL.fullmatch(name)}
    for folder, stem in STEMS.items():
        inside = [name.removeprefix(f"{folder}/") for name in sizes if name.startswith(f"{folder}/")]
        chosen = _chosen(inside, stem, variant)
        if "model_index.json" not in sizes or not chosen:
            raise ModelNotFoundError(
                f"{repo} isn't a diffusers folder with safetensors: for an official .pth, download it and give its path"
            )
        needed |= {f"{folder}/{name}": sizes[f"{folder}/{name}"] for name in chosen}
    return needed


def autoencoder_files(repo: str, sizes: Mapping[str, int]) -> dict[str, int]:
    """Return files of an autoencoder alone, or of that of a whole model, with their bytes: configuration and weights.

    Raises ModelNotFoundError if the repository holds no DC-AE in the diffusers layout.
    """
    return _component_files(
        repo, sizes, "vae/", "autoencoder (config.json and safetensors of an AutoencoderDC)"
    )


def control_files(repo: str, sizes: Mapping[str, int]) -> dict[str, int]:
    """Return the files of a ControlNet alone, or of that of a whole pipeline; as `autoencoder_files`."""
    return _component_files(
        repo, sizes, "controlnet/", "ControlNet (config.json and safetensors of a SanaControlNetModel)"
    )


def _component_files(repo: str, sizes: Mapping[str, int], inside_of: str, what: str) -> dict[str, int]:
    folder = inside_of if f"{inside_of}config.json" in sizes else ""
    inside = [name.removeprefix(folder) for name in sizes if name.startswith(folder)]
    chosen = _chosen((name for name in inside if "/" not in name), DIFFUSERS_STEM, None)
    if f"{folder}config.json" not in sizes or not chosen:
        raise ModelNotFoundError(f"{repo} holds no {what}")
    licences = [name for name in sizes if name.startswith("LICENSE") and "/" not in name]
    names = [*licences, *(f"{folder}{name}" for name in ("config.json", *chosen))]
    return {name: sizes[name] for name in names}


def lora_name(names: Iterable[str], where: str) -> str:
    """Return the file of a LoRA among those of a folder: diffusers', else peft's, else the only safetensors file.

    Raises ModelNotFoundError if there is none, or several of other names.
    """
    found = sorted(name for name in names if name.endswith(".safetensors"))
    known = next((name for name in LORA_NAMES if name in found), None)
    if known is None and len(found) != 1:
        what = (
            f"several safetensors files ({', '.join(found[:3])}): name one"
            if found
            else "no safetensors file"
        )
        raise ModelNotFoundError(f"{where} holds {what}")
    return known or found[0]


def lora_files(repo: str, sizes: Mapping[str, int], wanted: str = "") -> dict[str, int]:
    """Return the files of a LoRA's repository that reading it needs, with their bytes. Raises ModelNotFoundError."""
    if wanted and wanted not in sizes:
        raise ModelNotFoundError(f"{repo} has no file {wanted}")
    name = wanted or lora_name((name for name in sizes if "/" not in name), repo)
    beside = [other for other in ("adapter_config.json",) if other in sizes and name == LORA_NAMES[1]]
    return {each: sizes[each] for each in (name, *beside)}


def _chosen(names: Iterable[str], stem: str, variant: str | None) -> list[str]:
    names = list(names)
    available = variants(names, stem)
    if not available:
        return []
    key = next((key for key in (variant, None) if key in available), next(iter(available)))
    tag = f".{key}" if key else ""
    # The variant stood behind the number before diffusers 0.28: stem-00001-of-00002.fp16.safetensors.
    part = r"-\d{5}-of-\d{5}"
    shard = re.compile(
        rf"(?:{re.escape(stem + tag)}{part}|{re.escape(stem)}{part}{re.escape(tag)})\.safetensors"
    )
    shards = [name for name in names if shard.fullmatch(name)] if available[key].endswith(".json") else []
    return [available[key], *shards]


def snapshot_files(repo: str, sizes: Mapping[str, int]) -> dict[str, int]:
    """Return the files at the root of a repository that loading reads, with their bytes.

    Raises ModelNotFoundError if it has no safetensors: other weight files can hold code and are not opened.
    """
    if not any(_ROOT_WEIGHTS.fullmatch(name) for name in sizes):
        raise ModelNotFoundError(f"{repo} holds no model.safetensors at its root: choose a model that has it")
    return {
        name: size
        for name, size in sizes.items()
        if _ROOT_SMALL.fullmatch(name) or _ROOT_WEIGHTS.fullmatch(name)
    }


def download(repo: str, revision: str | None, files: Iterable[str]) -> Path:
    """Download files of a repository; return their folder. Raises ModelNotFoundError."""
    try:
        # By its name, not its commit: only names are found again offline.
        return Path(huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=list(files)))
    except Exception as error:  # noqa: BLE001  network failures of the client have no common base class
        why = failure_reason(error)
        raise ModelNotFoundError(
            f"downloading {repo} failed: {why}; what came stays cached: try again"
        ) from error


def cached_file(repo: str, name: str, revision: str | None) -> Path | None:
    """Return the cached file, or None. The client returns a marker for files known not to exist."""
    try:
        found = huggingface_hub.try_to_load_from_cache(repo, name, revision=revision)
    except ValueError:  # a name that no repository can have
        return None
    return Path(found) if isinstance(found, str) else None


def announce_download(repo: str, missing: Mapping[str, int], announce: Callable[[str], object]) -> None:
    """`org/name: 12 files, 8.4 GiB to download (...); licence: ...`; nothing when nothing is missing."""
    if not missing:
        return
    parts = {
        folder: sum(size for name, size in missing.items() if name.startswith(f"{folder}/"))
        for folder in STEMS
    }
    detail = ", ".join(f"{folder} {size_text(size)}" for folder, size in parts.items() if size)
    known: tuple[Published | PublishedAutoencoder, ...] = (*PUBLISHED.values(), *AUTOENCODERS.values())
    licence = next((entry.licence for entry in known if entry.repo == repo), "see its model card")
    total = size_text(sum(missing.values()))
    announce(
        f"{repo}: {len(missing)} files, {total} to download{f' ({detail})' if detail else ''}; licence: {licence}"
    )
