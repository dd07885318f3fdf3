"""Under which keys latents and text states are stored, and notes on what a cache was filled with.

cache.json             fingerprint of an encoder -> {"kind", "model", "dtype", "sizes"}
pictures-1a2b3c.json   for one set: key of a picture -> sha256 of its file, so that training need not read pictures

The notes let an error name the model a cache was filled for, instead of reporting only that a key is missing.
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
from sanakit.data.buckets import Crop

_NAME = "cache.json"
_LOCK = ".notes.lock"
_PATIENCE = 60.0  # seconds; notes of a million pictures are merged in encoder one

_DIGITS = 32  # 128 bits: no collisions in any set


@dataclass(frozen=True, kw_only=True)
class CachedEncoder:
    """An encoder with results in the cache.

    kind: "latent" or "text". model: the name it was loaded by. dtype: of the computation. sizes: "512x768" (width x
    height) of every bucket it was filled for; empty for texts.
    """

    kind: Literal["latent", "text"]
    model: str
    dtype: str
    sizes: tuple[str, ...] = ()


def read_encoders(folder: Path) -> dict[str, CachedEncoder]:
    """Read fingerprint -> encoder; empty if nothing was noted. Raises ConfigError if the file can't be read."""
    path = folder / _NAME
    if not path.exists():
        return {}
    try:
        stored = read_object(path)
        return {
            str(fingerprint): CachedEncoder(**{**fields, "sizes": tuple(fields["sizes"])})
            for fingerprint, fields in stored.items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"{path} can't be read: delete it and run `sanakit data cache` again") from error


def note_encoder(folder: Path, fingerprint: str, encoder: CachedEncoder) -> None:
    """Add an encoder, or its sizes to those noted.

    Raises ConfigError if the same encoder filled this cache in another dtype: results would be mixed. Raises
    OutputError.
    """
    with _locked(folder):
        known = read_encoders(folder)
        before = known.get(fingerprint, replace(encoder, sizes=()))
        if before.dtype != encoder.dtype:
            raise ConfigError(
                f"{folder} holds results of this {before.kind} encoder in {before.dtype}, not {encoder.dtype}: "
                f"use --dtype {before.dtype}, or another folder"
            )
        sizes = tuple(dict.fromkeys([*before.sizes, *encoder.sizes]))
        merged = {**known, fingerprint: replace(encoder, sizes=sizes)}
        if merged != known:
            plain = {name: asdict(entry) for name, entry in merged.items()}
            atomic_write(folder / _NAME, (json.dumps(plain, indent=1) + "\n").encode())


def read_pictures(folder: Path, source: Path) -> dict[str, str]:
    """Key -> sha256 of the pictures of a set, as they were when the cache was filled; empty if it never was."""
    try:
        stored = read_object(_pictures_file(folder, source))
    except (OSError, ValueError):
        return {}
    return {str(key): str(value) for key, value in stored.items()}


def note_pictures(folder: Path, source: Path, hashes: Mapping[str, str]) -> None:
    """Add hashes of pictures to those noted. Raises OutputError."""
    with _locked(folder):
        known = read_pictures(folder, source)
        merged = {**known, **hashes}
        if merged != known:
            text = json.dumps(merged, ensure_ascii=True, indent=0)
            atomic_write(_pictures_file(folder, source), text.encode())


def _locked(folder: Path) -> AbstractContextManager[None]:
    """Keep other processes from changing the notes."""
    return hold(folder / _LOCK, "writes notes", wait=_PATIENCE)


def _pictures_file(folder: Path, source: Path) -> Path:
    digest = hashlib.sha256(str(source.resolve()).encode("utf-8", "surrogateescape")).hexdigest()
    return folder / f"pictures-{digest[:12]}.json"


def picture_hash(data: bytes) -> str:
    """sha256 (hex) of an encoded picture, as stored."""
    return hashlib.sha256(data).hexdigest()


def latent_key(picture_sha256: str, crop: Crop, encoder: str) -> str:
    """Return the key of the latent of a picture, cut by `crop`. encoder: fingerprint."""
    return _key("latent", picture_sha256, asdict(crop), encoder)


def text_key(caption: str, encoder: str) -> str:
    """Return the key of the token states of a caption. encoder: fingerprint."""
    return _key("text", caption, encoder)


def trajectory_key(number: int, size: int, teacher: str) -> str:
    """Return the key of a trajectory. size: pixels of its phase. teacher: fingerprint of all that it depends on."""
    return _key("trajectory", number, size, teacher)


def _key(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:_DIGITS]
