"""A model of the `transformers` layout by folder or hub id: said before it is fetched, never run as code."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from sanakit.base.echo import quoted
from sanakit.base.errors import ModelNotFoundError
from sanakit.base.paths import is_folder, user_path
from sanakit.weights.catalog import fetch, is_hub_id

__all__ = ["resolve_snapshot", "snapshot_files"]

_SMALL = re.compile(r"[^/]+\.(?:json|txt|model|jinja|tiktoken)")
_WEIGHTS = re.compile(r"model(?:-\d{5}-of-\d{5})?\.safetensors")


def resolve_snapshot(
    name: str | Path,
    *,
    announce: Callable[[str], object] = lambda text: None,
    revision: str | None = None,
) -> Path:
    """The folder of a model that `transformers` loads; hub models are fetched into the hub's own cache.

    announce is called with the size before anything is downloaded (raise in it to refuse).
    Raises ModelNotFoundError for what is no folder with a config.json and no hub id, and where the hub refuses.
    """
    text = str(name)
    path = user_path(name)
    if text and is_folder(path):
        if not (path / "config.json").is_file():
            raise ModelNotFoundError(f"{path} holds no config.json: give the folder of a transformers model")
        return path
    if not is_hub_id(text):
        raise ModelNotFoundError(
            f"no model {quoted(text, 200)}: it is no folder and no hub id (such as openai/clip-vit-base-patch32)"
        )
    found, why = fetch(
        text, announce, revision, lambda sizes: snapshot_files(text, sizes), index="config.json"
    )
    if found is None:
        raise ModelNotFoundError(f"no model {text!r}: no such folder, and {why}")
    return found


def snapshot_files(repo: str, sizes: Mapping[str, int]) -> dict[str, int]:
    """The files at the root of a repository that loading reads, with their bytes.

    Raises ModelNotFoundError where it has no safetensors: other weight files can hold code and are not opened.
    """
    if not any(_WEIGHTS.fullmatch(name) for name in sizes):
        raise ModelNotFoundError(f"{repo} holds no model.safetensors at its root: choose a model that has it")
    return {name: size for name, size in sizes.items() if _SMALL.fullmatch(name) or _WEIGHTS.fullmatch(name)}
