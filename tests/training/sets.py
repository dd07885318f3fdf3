"""A small set of Toybox pictures, made once per test process, and the config of a run that takes a second."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

from sanakit.toybox.folder import write_pictures
from sanakit.training.config import TrainConfig
from sanakit.training.schema import build

COUNT = 12
TINY = {"start": "scratch", "changes": {"depth": 1, "width": 64, "heads": 2, "cross_heads": 2}}
SHAPE = {"depth": 2, "width": 64, "heads": 2, "cross_heads": 2}
"""Of the teacher that `conftest` makes."""


@functools.cache
def pictures() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="sanakit-set-"))
    for _ in write_pictures(folder, COUNT, size=64, captions=2):
        pass
    return folder


@functools.cache
def cache() -> Path:
    """Filled by the first run, shared by the others."""
    return Path(tempfile.mkdtemp(prefix="sanakit-cache-"))


def values(folder: Path, **changes: Any) -> dict[str, Any]:
    """What a YAML file of a tiny run holds."""
    plain: dict[str, Any] = {
        "folder": str(folder),
        "batch": 4,
        "phases": [{"steps": 6, "size": 64}],
        "data": {"path": str(pictures()), "cache": str(cache()), "square": True, "held": 4},
        "model": TINY,
        "optimizer": {"lr": "1e-3"},
        "schedule": {"warmup": 2},
        "dtype": "fp32",
        "report": 1,
    }
    return plain | changes


def config(folder: Path, **changes: Any) -> TrainConfig:
    return build(TrainConfig, values(folder, **changes))
