"""Is every shard of a cache what was written? Reads all bytes; changes nothing but missing manifests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sanakit.base.errors import ConfigError, WeightsError
from sanakit.data.cache.manifest import describe_shard, read_manifest, write_manifest
from sanakit.data.cache.store import keys_of, shards_in

__all__ = ["ShardCheck", "verify"]


@dataclass(frozen=True, kw_only=True)
class ShardCheck:
    """What was found about one file.

    state: "whole"; "unsigned": no manifest could say so, and one was written now; "broken"; "draft": what a write that
    was cut off left behind. text: one sentence for all but whole ones. index, total: how far the walk is.
    """

    path: Path
    state: Literal["whole", "unsigned", "broken", "draft"]
    keys: int
    bytes: int
    text: str
    index: int
    total: int


def verify(folder: Path | str) -> Iterator[ShardCheck]:
    """A check for every shard and every leftover of a cache. Raises ConfigError where there is none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigError(f"there is no cache at {folder}")
    shards, drafts = shards_in(folder), sorted(folder.glob(".*.part.*"))
    total = len(shards) + len(drafts)
    for index, path in enumerate([*shards, *drafts]):
        state, keys, text = _draft(path) if index >= len(shards) else _check(path)
        size = path.stat().st_size if path.exists() else 0
        yield ShardCheck(
            path=path, state=state, keys=keys, bytes=size, text=text, index=index, total=total
        )  # fmt: skip


def _check(path: Path) -> tuple[Literal["whole", "unsigned", "broken"], int, str]:
    again = "delete it and run `sanakit data cache` again, which makes anew what it held"
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
            f"{path} had no manifest to compare with; one was written from what it is now",
        )
    if describe_shard(path) != manifest:
        return "broken", keys, f"{path} has changed since it was written: {again}"
    return "whole", keys, ""


def _draft(path: Path) -> tuple[Literal["draft"], int, str]:
    return (
        "draft",
        0,
        f"{path} is what a write that was cut off left behind: delete it if no command is running",
    )
