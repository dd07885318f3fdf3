"""How many CPU threads a piece of work gets: by its size, the machine and the user's settings.

The current load never counts: the number of threads decides how sums are split, and so the last bits of a picture. The
number is set for a piece of work and restored after it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import torch

from sanakit.base.errors import RequestError

T = TypeVar("T")

SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Environment variables that torch reads; if a user has set one, nothing is changed."""

SMALL = 2e8
"""Below so many operations, one product is too small to share among all cores.

On one core of 50 to 100 G operations/s they take 2 to 4 ms. Threads that share less meet at a barrier more often than a
system that has other work as well lets both of them run: its turns last about as long.
"""

FEW = 2
"""Threads for small work: a second one is worth a third of the time on an idle machine, and costs little on a busy one
as long as threads wait briefly (see `waiting`); more meet at barriers more often than they work."""

_GROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Threads:
    """A number of threads, and the reason."""

    count: int
    reason: str


def choose_threads(operations: float, asked: int | None = None) -> Threads:
    """Choose threads for work whose widest product has so many operations; a multiplication and a sum are two.

    asked: takes precedence. Otherwise the environment decides (see `SETTINGS`); otherwise `FEW` for small work (one
    on one core), and for other work as many as torch has now, but no more than the container may use.
    """
    if asked is not None:
        return Threads(asked, "as asked")
    present = torch.get_num_threads()
    named = next((name for name in SETTINGS if os.environ.get(name)), None)
    if named is not None:
        return Threads(present, f"{named} says so")
    if operations < SMALL:
        return Threads(min(FEW, available_cores()), "its products are too small to share among more")
    quota = core_quota()
    if quota is not None and quota < present:
        return Threads(quota, "the container may use no more cores")
    return Threads(present, "torch's own number")


def check_threads(asked: int | None) -> int | None:
    """Return `asked`; raise RequestError if it is less than 1."""
    if asked is not None and asked < 1:
        raise RequestError(f"threads must be 1 or more, not {asked}")
    return asked


@contextmanager
def use_threads(count: int) -> Iterator[None]:
    """Run torch on `count` threads inside the block, and restore the number afterwards.

    The number belongs to the calling Python thread, and to those that start to use torch meanwhile.
    """
    before = torch.get_num_threads()
    if count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def on_threads(count: int, items: Generator[T]) -> Generator[T]:
    """Yield the same items, each computed on `count` threads; between two of them the caller's number is restored."""
    with closing(items):
        while True:
            with use_threads(count):
                made = list(islice(items, 1))
            if not made:
                return
            yield made[0]


def available_cores() -> int:
    """Cores that this process may use: what the system lets it run on, and no more than the container's quota."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    return min(cores, core_quota() or cores)


def core_quota(root: Path = _GROUPS) -> int | None:
    """Whole cores that this container may use at once, 1 or more; None without a container or without a limit."""
    limits = _limits(root)
    if limits is None or min(limits) <= 0:
        return None
    quota, period = limits
    return max(1, math.ceil(quota / period))


def _limits(root: Path) -> tuple[int, int] | None:
    """Microseconds of work per microseconds of time: of cgroup v2 in one file, of v1 in two."""
    try:
        if (root / "cpu.max").exists():
            quota, period = (root / "cpu.max").read_text(encoding="ascii").split()
        else:
            quota, period = (
                (root / "cpu" / f"cpu.cfs_{name}_us").read_text(encoding="ascii")
                for name in ("quota", "period")
            )
        return int(quota), int(period)
    except (OSError, ValueError):
        return None
