"""A folder of tensors by key: safetensors shards, each with a manifest of its size and its hash.

    cache/
      shard-1f0c9a42d3b7.safetensors     tensors named KEY/NAME
      shard-1f0c9a42d3b7.json            {"bytes": ..., "sha256": ...}

The headers of the shards are the index: nothing else has to be right for a tensor to be found. A shard appears under
its name only when it is whole and synced, so a crash loses what was not flushed and nothing more. Every writer makes
shards of its own names, so several processes may write into one folder; a key that two of them made is there twice.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from sanakit.base.errors import ConfigError, WeightsError
from sanakit.base.files import ensure_writable_folder
from sanakit.data.cache.manifest import read_manifest, write_manifest
from sanakit.weights import TensorFile, byte_size, read_header, write_safetensors

__all__ = ["SHARD_BYTES", "ShardFault", "TensorCache", "keys_of", "shards_in"]

SHARD_BYTES = 128 * 2**20
_SHARDS = "shard-*.safetensors"


@dataclass(frozen=True, kw_only=True)
class ShardFault:
    """A shard that can't be used, and why."""

    path: Path
    text: str


class TensorCache:
    """Tensors by key in a folder, as one process sees it.

    folder: made when missing, unless `read_only`. shard_bytes: how much is kept in memory before it is written.
    Raises OutputError where the folder can't be written, ConfigError where it is missing and only to be read.
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
        self._homes: dict[str, tuple[Path, tuple[str, ...]]] = {}  # key -> shard, names of its tensors
        self._files: dict[Path, TensorFile] = {}
        self._faults: dict[Path, ShardFault] = {}
        self._pending: dict[str, dict[str, Tensor]] = {}
        self._pending_bytes = 0
        self.refresh()

    def __getstate__(self) -> dict[str, Any]:
        """Without the open files: a worker process opens its own."""
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
        """Sees the shards that other processes have written since."""
        for path in shards_in(self.folder):
            if path not in self._files and path not in self._faults:
                self._adopt(path)

    def __contains__(self, key: object) -> bool:
        return key in self._homes or key in self._pending

    def __len__(self) -> int:
        return len(self._homes.keys() | self._pending.keys())

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._homes, *self._pending]))

    def get(self, key: str) -> dict[str, Tensor] | None:
        """The tensors under `key` by name, on the CPU, or None. Raises WeightsError where its shard broke meanwhile."""
        if key in self._pending:
            return {name: tensor.clone() for name, tensor in self._pending[key].items()}
        if key not in self._homes:
            return None
        path, names = self._homes[key]
        # Copies: what lies in a mapped file would be lost with it.
        return {name: self._files[path][f"{key}/{name}"].clone() for name in names}

    def put(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Keeps tensors under a key, unless the key is there already; a shard is written when enough has come.

        Raises OutputError where it can't be written: what was put stays in memory, and `flush` may be tried again.
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
        """Writes what is in memory as one shard; returns its path, None where there was nothing. Raises OutputError."""
        if not self._pending:
            return None
        path = self.folder / f"shard-{secrets.token_hex(6)}.safetensors"
        pairs = (
            (f"{key}/{name}", tensor) for key, kept in self._pending.items() for name, tensor in kept.items()
        )
        write_safetensors(path, dict(pairs))
        self._adopt(path)
        self._pending.clear()
        self._pending_bytes = 0
        write_manifest(path)
        return path

    def _adopt(self, path: Path) -> None:
        """Takes a shard into the index, or among the faults."""
        try:
            found = keys_of(path)
        except WeightsError as error:
            self._faults[path] = ShardFault(path=path, text=str(error))
            return
        self._files[path] = TensorFile(path)
        shared: dict[
            tuple[str, ...], tuple[Path, tuple[str, ...]]
        ] = {}  # one home for all keys: there may be millions
        for key, names in found.items():
            self._homes.setdefault(key, shared.setdefault(names, (path, names)))


def shards_in(folder: Path) -> list[Path]:
    """The shards of a cache by name; drafts of a write that was cut off are none."""
    return sorted(folder.glob(_SHARDS))


def keys_of(path: Path) -> dict[str, tuple[str, ...]]:
    """Key -> names of its tensors, from a shard's header. Raises WeightsError for one that is not whole."""
    manifest = read_manifest(path)
    found: dict[str, tuple[str, ...]] = {}
    for full in read_header(path):
        key, _, name = full.partition("/")
        found[key] = (*found.get(key, ()), name)
    if manifest is not None and manifest.bytes != path.stat().st_size:
        raise WeightsError(f"{path} has not the size it was written with: delete it and fill the cache again")
    return found
