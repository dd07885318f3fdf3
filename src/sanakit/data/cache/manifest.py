"""What a shard was when it was written, beside it as JSON: its size and its hash, to tell damage later."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from sanakit.base.files import atomic_write, file_sha256
from sanakit.base.json_text import read_object

__all__ = ["Manifest", "describe_shard", "read_manifest", "write_manifest"]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """bytes: size of the shard's file. sha256: of all of it, hex."""

    bytes: int
    sha256: str


def describe_shard(path: Path) -> Manifest:
    """The manifest of a shard as it is now; reads all of it."""
    return Manifest(bytes=path.stat().st_size, sha256=file_sha256(path))


def write_manifest(path: Path) -> Manifest:
    """Write the manifest of a shard. Raises OutputError."""
    made = describe_shard(path)
    atomic_write(path.with_suffix(".json"), (json.dumps(asdict(made)) + "\n").encode())
    return made


def read_manifest(path: Path) -> Manifest | None:
    """The manifest of a shard, None where it is missing or can't be read: the shard's header still holds the index."""
    try:
        told = read_object(path.with_suffix(".json"))
        return Manifest(bytes=int(told["bytes"]), sha256=str(told["sha256"]))
    except (OSError, ValueError, KeyError, TypeError, OverflowError):  # an infinite size
        return None
