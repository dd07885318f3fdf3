"""Rendered scenes for the Toybox recipes: images as uint8 shards, scenes beside them; writing resumes.

`images-00000.npy` is uint8 [n, 3, size, size]; `scenes-00000.jsonl` has one scene a line in the same order. A shard
appears under its name only when it is complete. Captions are not stored: they are sampled from the scene in training.
"""

from __future__ import annotations

import json
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sanakit.base.files import atomic_write, ensure_writable_folder
from sanakit.base.json_text import parse_json
from sanakit.toybox.folder import render_uint8, worker_pool
from sanakit.toybox.grammar import Scene, Split
from sanakit.toybox.sampling import SEED_STRIDE, sample_scene

RUNS = Path("runs/toybox")
SIZE = 256  # pixels
SHARD = 1000


@dataclass(frozen=True, kw_only=True)
class RenderProgress:
    """Images done of all, and seconds spent and expected; existing images count as done, not as time."""

    done: int
    total: int
    seconds: float
    remaining: float


@dataclass(frozen=True, kw_only=True)
class _Shard:
    folder: Path
    index: int
    start: int
    count: int
    size: int
    split: Split
    seed: int
    compiled: bool


def render_dataset(
    folder: Path | str,
    count: int,
    size: int = 256,
    split: Split = "train",
    seed: int = 0,
    workers: int = 1,
    shard: int = SHARD,
    compiled: bool = True,
    progress: Callable[[RenderProgress], None] | None = None,
) -> None:
    """Render scenes 0..count-1 of (split, seed) into `folder`; shards already whole are kept, so a second call resumes.

    `workers` processes work on different shards, one thread each. The pictures do not depend on `workers`.
    Raises OutputError.
    """
    folder = ensure_writable_folder(folder)
    starts = range(0, count, shard)
    shards = [
        _Shard(
            folder=folder,
            index=i,
            start=at,
            count=min(shard, count - at),
            size=size,
            split=split,
            seed=seed,
            compiled=compiled,
        )
        for i, at in enumerate(starts)
    ]
    missing = [piece for piece in shards if not _is_whole(piece)]
    before = count - sum(piece.count for piece in missing)
    begun, fresh = time.monotonic(), 0
    for piece in _work(missing, workers):
        fresh += piece
        spent = time.monotonic() - begun
        if progress is not None:
            left = (count - before - fresh) * spent / fresh
            progress(RenderProgress(done=before + fresh, total=count, seconds=spent, remaining=left))


def _work(missing: list[_Shard], workers: int) -> Iterator[int]:
    if workers <= 1:
        yield from map(_write_shard, missing)
        return
    with worker_pool(workers) as pool:
        for future in as_completed([pool.submit(_write_shard, piece) for piece in missing]):
            yield future.result()


def _paths(folder: Path, index: int) -> tuple[Path, Path]:
    return folder / f"images-{index:05d}.npy", folder / f"scenes-{index:05d}.jsonl"


def _is_whole(piece: _Shard) -> bool:
    images, scenes = _paths(piece.folder, piece.index)
    if not (images.exists() and scenes.exists()):
        return False
    return bool(np.load(images, mmap_mode="r").shape == (piece.count, 3, piece.size, piece.size))


def _write_shard(piece: _Shard) -> int:
    """Render one shard; the pictures get their final name last, so a shard with a name is whole. Returns its length."""
    scenes = [
        sample_scene(piece.seed * SEED_STRIDE + piece.start + i, piece.split) for i in range(piece.count)
    ]
    pictures = np.empty((piece.count, 3, piece.size, piece.size), dtype=np.uint8)
    for i, scene in enumerate(scenes):
        pictures[i] = render_uint8(scene, piece.size, piece.compiled).numpy()
    images, lines = _paths(piece.folder, piece.index)
    text = "".join(json.dumps(scene.to_json()) + "\n" for scene in scenes)
    atomic_write(lines, text.encode())
    atomic_write(images, lambda draft: np.save(draft, pictures))
    return piece.count


def keep(path: Path, value: object) -> None:
    """Write what `torch.load` reads with `weights_only`, atomically."""
    atomic_write(path, lambda draft: torch.save(value, draft))


class SceneShards:
    """The whole shards of a folder as one sequence; pictures stay on disk (memory-mapped) until asked for."""

    def __init__(self, folder: Path | str) -> None:
        self._images: list[np.ndarray] = []
        self._scenes: list[list[str]] = []
        self._ends: list[int] = []
        total = 0
        for path in sorted(Path(folder).glob("images-*.npy")):
            lines = path.with_name(path.name.replace("images-", "scenes-")).with_suffix(".jsonl")
            self._images.append(np.load(path, mmap_mode="r"))
            self._scenes.append(lines.read_text(encoding="utf-8").splitlines())
            total += len(self._images[-1])
            self._ends.append(total)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def image(self, index: int) -> torch.Tensor:
        """Picture `index` as uint8 [3, H, W]."""
        shard, row = self._locate(index)
        return torch.from_numpy(self._images[shard][row].copy())

    def scene(self, index: int) -> Scene:
        """The scene that picture `index` shows."""
        shard, row = self._locate(index)
        return Scene.from_json(parse_json(self._scenes[shard][row]))

    def _locate(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"picture {index} asked of a data set of {len(self)}")
        shard = bisect_right(self._ends, index)
        return shard, index - (self._ends[shard - 1] if shard else 0)
