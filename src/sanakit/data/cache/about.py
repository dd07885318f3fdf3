"""What a cache was filled with, so that the cache of another model is told and not only missed.

cache.json             mark of an encoder -> {"kind", "model", "dtype", "sizes"}
pictures-1a2b3c.json   of one set: key of a picture -> sha256 of its file, so that training need not read pictures
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from sanakit.base.errors import ConfigError
from sanakit.base.files import atomic_write
from sanakit.base.json_text import read_object
from sanakit.base.locks import hold

__all__ = ["About", "note_encoder", "note_pictures", "read_about", "read_pictures"]

_NAME = "cache.json"
_LOCK = ".notes.lock"
_PATIENCE = 60.0  # seconds; notes of a million pictures are merged in about one


@dataclass(frozen=True, kw_only=True)
class About:
    """One encoder whose results lie in the cache.

    kind: "latent" or "text". model: the name it was loaded by. dtype: what it computed in. sizes: "512x768" (width x
    height) of every bucket it was filled for; empty for texts.
    """

    kind: Literal["latent", "text"]
    model: str
    dtype: str
    sizes: tuple[str, ...] = ()


def read_about(folder: Path) -> dict[str, About]:
    """Mark -> encoder; empty where nothing was noted. Raises ConfigError for a file that can't be read."""
    path = folder / _NAME
    if not path.exists():
        return {}
    try:
        told = read_object(path)
        return {
            str(mark): About(**{**fields, "sizes": tuple(fields["sizes"])}) for mark, fields in told.items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"{path} can't be read: delete it and run `sanakit data cache` again") from error


def note_encoder(folder: Path, mark: str, about: About) -> None:
    """Add an encoder, or its sizes to those noted.

    Raises ConfigError where the same encoder filled this cache in another dtype: its results would be mixed. Raises
    OutputError.
    """
    with _alone(folder):
        known = read_about(folder)
        before = known.get(mark, replace(about, sizes=()))
        if before.dtype != about.dtype:
            raise ConfigError(
                f"{folder} holds results of this {before.kind} encoder in {before.dtype}, not {about.dtype}: "
                f"use --dtype {before.dtype}, or another folder"
            )
        sizes = tuple(dict.fromkeys([*before.sizes, *about.sizes]))
        merged = {**known, mark: replace(about, sizes=sizes)}
        if merged != known:
            plain = {name: asdict(entry) for name, entry in merged.items()}
            atomic_write(folder / _NAME, (json.dumps(plain, indent=1) + "\n").encode())


def read_pictures(folder: Path, source: Path) -> dict[str, str]:
    """Key -> sha256 of the pictures of a set, as they were when the cache was filled; empty where it never was."""
    try:
        told = read_object(_pictures_file(folder, source))
    except (OSError, ValueError):
        return {}
    return {str(key): str(value) for key, value in told.items()}


def note_pictures(folder: Path, source: Path, hashes: Mapping[str, str]) -> None:
    """Add hashes of pictures to those noted. Raises OutputError."""
    with _alone(folder):
        known = read_pictures(folder, source)
        merged = {**known, **hashes}
        if merged != known:
            text = json.dumps(merged, ensure_ascii=True, indent=0)
            atomic_write(_pictures_file(folder, source), text.encode())


def _alone(folder: Path) -> AbstractContextManager[None]:
    """No other process adds to the notes meanwhile."""
    return hold(folder / _LOCK, "writes notes", wait=_PATIENCE)


def _pictures_file(folder: Path, source: Path) -> Path:
    digest = hashlib.sha256(str(source.resolve()).encode("utf-8", "surrogateescape")).hexdigest()
    return folder / f"pictures-{digest[:12]}.json"
