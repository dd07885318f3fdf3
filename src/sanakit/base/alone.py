"""A short piece of work in a thread of its own, on one core: so that it can be timed on a busy machine.

Threads of one product wait for each other, and where others hold the cores a product of microseconds takes a hundred
milliseconds. The thread also starts from torch's plain state: no modes, no autocast, no default device.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

import torch

__all__ = ["on_one_core"]

T = TypeVar("T")


def on_one_core(work: Callable[[], T]) -> T:
    """What `work` returns, run without gradients and, where OpenMP can be told so, on one core.

    The number of threads of the caller, and of everyone else, stays as it is. MKL is not told.
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
    """OpenMP's `omp_set_num_threads`, which counts for the thread that calls it; None where it can't be found."""
    try:
        return getattr(ctypes.CDLL(None), "omp_set_num_threads", None)
    except (OSError, TypeError):  # systems that do not load the process itself by this way
        return None
