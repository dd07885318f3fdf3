"""A folder of tensors by key: safetensors shards, each with a manifest of its size and hash.

    cache/
      shard-1f0c9a42d3b7.safetensors     tensors named KEY/NAME
      shard-1f0c9a42d3b7.json            {"bytes": ..., "sha256": ...}

The headers of the shards are the index: nothing else has to be right for a tensor to be found. A shard appears under
its name only when it is complete and synced, so a crash loses only what was not flushed. Every writer makes shards with
names of its own, so several processes may write into one folder; a key that two of them made is stored twice.
`verify` reads every byte.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from sanakit.base.errors import ConfigError, WeightsError
from sanakit.base.files import atomic_write, ensure_writable_folder, file_sha256
from sanakit.base.json_text import read_object
from sanakit.weights import TensorFile, byte_size, read_header, write_safetensors

SHARD_BYTES = 128 * 2**20
_SHARDS = "shard-*.safetensors"


@dataclass(frozen=True, kw_only=True)
class ShardFault:
    """A shard that can't be used, and why."""

    path: Path
    text: str


class TensorCache:
    """Tensors by key in a folder, as one process sees it.

    folder: created if missing, unless `read_only`. shard_bytes: how much is kept in memory before it is written.
    Raises OutputError if the folder can't be written, ConfigError if it is missing and read_only.
    """

    def __init__(
        self, folder: Path | str, *, shard_bytes: int = SHARD_BYTES, read_only: bool = False
    ) -> None:
        self.folder = Path(folder)
        if read_only and not self.folder.is_dir():
            raise ConfigError(f"there is no cache at {self.folder}: fill one with `sanakit data cache`")
        if not read_only:
            ensure_writable_folder(self.folder)
        self.shard_bytes, self.read_only = shard_bytes, read_only
        self._locations: dict[str, tuple[Path, tuple[str, ...]]] = {}  # key -> shard, names of its tensors
        self._files: dict[Path, TensorFile] = {}
        self._faults: dict[Path, ShardFault] = {}
        self._pending: dict[str, dict[str, Tensor]] = {}
        self._pending_bytes = 0
        self.refresh()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the open files: a worker process opens its own."""
        return {**self.__dict__, "_files": dict.fromkeys(self._files)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"_files": {path: TensorFile(path) for path in state["_files"]}}

    @property
    def faults(self) -> tuple[ShardFault, ...]:
        """Shards that were found unusable and are passed over."""
        return tuple(self._faults.values())

    @property
    def shards(self) -> int:
        """How many shards are in use."""
        return len(self._files)

    def refresh(self) -> None:
        """Find the shards that other processes have written since."""
        for path in shards_in(self.folder):
            if path not in self._files and path not in self._faults:
                self._add_shard(path)

    def __contains__(self, key: object) -> bool:
        return key in self._locations or key in self._pending

    def __len__(self) -> int:
        return len(self._locations.keys() | self._pending.keys())

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._locations, *self._pending]))

    def get(self, key: str) -> dict[str, Tensor] | None:
        """Return tensors under `key` by name, on the CPU, or None. Raises WeightsError if its shard broke meanwhile."""
        if key in self._pending:
            return {name: tensor.clone() for name, tensor in self._pending[key].items()}
        if key not in self._locations:
            return None
        path, names = self._locations[key]
        # Copied, because a tensor in a mapped file would be lost with the file.
        return {name: self._files[path][f"{key}/{name}"].clone() for name in names}

    def shape(self, key: str, name: str) -> torch.Size | None:
        """Return the shape of a written tensor under `key`, without reading it, or None. Raises WeightsError."""
        if key not in self._locations:
            return None
        return self._files[self._locations[key][0]][f"{key}/{name}"].shape

    def put(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Store tensors under a key, unless the key exists; a shard is written once enough has accumulated.

        Raises OutputError if it can't be written: tensors stay in memory, and `flush` may be tried again.
        """
        if self.read_only:
            raise ConfigError(f"the cache {self.folder} was opened for reading only")
        if not tensors or not key or "/" in key:
            raise ConfigError(f"a cache keeps tensors under a key without a slash, not {key[:80]!r}")
        if key in self:
            return
        kept = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
        self._pending[key] = kept
        self._pending_bytes += sum(byte_size(tensor) for tensor in kept.values())
        if self._pending_bytes >= self.shard_bytes:
            self.flush()

    def flush(self) -> Path | None:
        """Write pending tensors as one shard; return its path, or None if there were none. Raises OutputError."""
        if not self._pending:
            return None
        path = self.folder / f"shard-{secrets.token_hex(6)}.safetensors"
        pairs = (
            (f"{key}/{name}", tensor) for key, kept in self._pending.items() for name, tensor in kept.items()
        )
        write_safetensors(path, dict(pairs))
        self._add_shard(path)
        self._pending.clear()
        self._pending_bytes = 0
        write_manifest(path)
        return path

    def _add_shard(self, path: Path) -> None:
        """Add a shard to the index, or to the faults."""
        try:
            found = keys_of(path)
        except WeightsError as error:
            self._faults[path] = ShardFault(path=path, text=str(error))
            return
        self._files[path] = TensorFile(path)
        shared: dict[
            tuple[str, ...], tuple[Path, tuple[str, ...]]
        ] = {}  # shared by all keys: there may be millions
        for key, names in found.items():
            self._locations.setdefault(key, shared.setdefault(names, (path, names)))


def shards_in(folder: Path) -> list[Path]:
    """Return the shards of a cache by name; temporary files of an interrupted write don't count."""
    return sorted(folder.glob(_SHARDS))


def keys_of(path: Path) -> dict[str, tuple[str, ...]]:
    """Key -> names of its tensors, from a shard's header. Raises WeightsError for one that is cut off."""
    manifest = read_manifest(path)
    found: dict[str, tuple[str, ...]] = {}
    for full in read_header(path):
        key, _, name = full.partition("/")
        found[key] = (*found.get(key, ()), name)
    if manifest is not None and manifest.bytes != path.stat().st_size:
        raise WeightsError(
            f"{path} doesn't have the size it was written with: delete it and fill the cache again"
        )
    return found


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """bytes: size of the shard's file. sha256: of all of it, hex."""

    bytes: int
    sha256: str


def describe_shard(path: Path) -> Manifest:
    """Compute the manifest of a shard, reading all of it."""
    return Manifest(bytes=path.stat().st_size, sha256=file_sha256(path))


def write_manifest(path: Path) -> Manifest:
    """Write the manifest of a shard. Raises OutputError."""
    made = describe_shard(path)
    atomic_write(path.with_suffix(".json"), (json.dumps(asdict(made)) + "\n").encode())
    return made


def read_manifest(path: Path) -> Manifest | None:
    """Read a shard's manifest; None if it is missing or can't be read: the shard's header still has the index."""
    try:
        stored = read_object(path.with_suffix(".json"))
        return Manifest(bytes=int(stored["bytes"]), sha256=str(stored["sha256"]))
    except (OSError, ValueError, KeyError, TypeError, OverflowError):  # an infinite size
        return None


@dataclass(frozen=True, kw_only=True)
class ShardCheck:
    """The result for one file.

    state: "whole"; "unsigned": it had no manifest, and one was written now; "broken"; "draft": a leftover of an
    interrupted write. text: one sentence for all but whole ones. index, total: progress.
    """

    path: Path
    state: Literal["whole", "unsigned", "broken", "draft"]
    keys: int
    bytes: int
    text: str
    index: int
    total: int


def verify(folder: Path | str) -> Iterator[ShardCheck]:
    """Check every shard and every leftover of a cache. Raises ConfigError if there is no cache."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigError(f"there is no cache at {folder}")
    shards, drafts = shards_in(folder), sorted(folder.glob(".*.part.*"))
    total = len(shards) + len(drafts)
    for index, path in enumerate([*shards, *drafts]):
        state, keys, text = _leftover(path) if index >= len(shards) else _check_shard(path)
        size = path.stat().st_size if path.exists() else 0
        yield ShardCheck(
            path=path, state=state, keys=keys, bytes=size, text=text, index=index, total=total
        )  # fmt: skip


def _check_shard(path: Path) -> tuple[Literal["whole", "unsigned", "broken"], int, str]:
    again = "delete it and run `sanakit data cache` again, which recreates its contents"
    try:
        keys = len(keys_of(path))
    except WeightsError:
        return "broken", 0, f"{path} is cut off or damaged: {again}"
    manifest = read_manifest(path)
    if manifest is None:
        write_manifest(path)
        return (
            "unsigned",
            keys,
            f"{path} had no manifest to compare with; one was written from its present contents",
        )
    if describe_shard(path) != manifest:
        return "broken", keys, f"{path} has changed since it was written: {again}"
    return "whole", keys, ""


def _leftover(path: Path) -> tuple[Literal["draft"], int, str]:
    return (
        "draft",
        0,
        f"{path} is the leftover of an interrupted write: delete it if no command is running",
    )
