"""Measurements of this machine, made on one core and stored, so that a decision is made once and not changed by noise.

One small file per question and machine in the user's cache folder. The first process to write it decides for all; if
nothing can be written, each process measures for itself.

Work is timed in a thread of its own, on one core: threads of one product wait for each other, and if others hold the
cores, a product of microseconds takes a hundred milliseconds. The thread also starts from torch's plain state: no
modes, no autocast, no default device.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch

from sanakit.base.errors import OutputError
from sanakit.base.files import write_if_new
from sanakit.base.json_text import read_object

T = TypeVar("T")


def folder() -> Path:
    """Where measurements are kept: `$XDG_CACHE_HOME/sanakit/measured`, else below `~/.cache`."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    try:
        base = Path(given) if os.path.isabs(given) else Path.home() / ".cache"
    except RuntimeError:  # no home
        base = Path(tempfile.gettempdir()) / f"cache-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
    return base / "sanakit" / "measured"


def remember(question: str, machine: str, measure: Callable[[], float]) -> tuple[float, Path | None]:
    """Return the stored number for a question on a machine, else measure and store it.

    With it comes the file that holds it, None if none could be written.
    """
    path = folder() / f"{question}-{hashlib.sha256(machine.encode()).hexdigest()[:16]}.json"
    kept = _read(path, machine)
    if kept is not None:
        return kept, path
    with suppress(OSError):  # damaged, if it is there
        path.unlink(missing_ok=True)
    value = measure()
    content = {"question": question, "machine": machine, "value": value}
    with suppress(OSError, OutputError):  # nothing can be written here
        path.parent.mkdir(parents=True, exist_ok=True)
        write_if_new(path, (json.dumps(content, indent=1) + "\n").encode())
    kept = _read(path, machine)  # perhaps of another process, which was faster
    return (value, None) if kept is None else (kept, path)


def _read(path: Path, machine: str) -> float | None:
    """Return the number in a file; None if there is none, or it is damaged or of another machine."""
    try:
        found = read_object(path)
        value = float(found["value"])
        return value if found["machine"] == machine and math.isfinite(value) and value > 0 else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def on_one_core(work: Callable[[], T]) -> T:
    """Run `work` without gradients and, if OpenMP allows, on one core; return its result.

    The number of threads of the caller, and of all others, is unchanged. MKL's is not set.
    """

    def run() -> T:
        torch.get_num_threads()  # else torch sets the number itself, at its first loop in a new thread
        setter = _setter()
        if setter is not None:
            setter(1)
        with torch.no_grad():
            return work()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()


@cache
def _setter() -> Callable[[int], Any] | None:
    """OpenMP's `omp_set_num_threads`, which counts for the thread that calls it; None if it can't be found."""
    try:
        return getattr(ctypes.CDLL(None), "omp_set_num_threads", None)
    except (OSError, TypeError):  # systems that do not load the process itself by this way
        return None
