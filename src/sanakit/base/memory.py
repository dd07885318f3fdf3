"""Memory: what this process may still take by the limits that are set for it, and which errors mean there is none.

Limits are those of the shell (`ulimit -v`, `ulimit -d`) and of the container or service, cgroups of both versions.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from sanakit.base.errors import ShortageError

ADVICE = (
    "close other programs or raise the limit of this one, or choose a smaller size, model or dtype (bf16); "
    "`sanakit doctor` estimates what is needed"
)
# Messages of libraries that raise no MemoryError: torch on a CPU, its file mapping, safetensors, CUDA, C++.
_WORDS = (
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "out of memory",
    "bad_alloc",
)
_NO_LIMIT = 2**62  # cgroups of version 1 write a number near 2**63 for none
_PAGE = 4096
_GROUPS = Path("/sys/fs/cgroup")


def process_status(name: str) -> int | None:
    """Bytes of a line such as VmRSS in Linux' table of this process; None on other systems."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)


def peak_bytes(device: str) -> int | None:
    """The most memory that this process has held, of a GPU's the tensors alone; None if the system doesn't say."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated()
    return process_status("VmHWM")


def is_shortage(error: BaseException | None) -> bool:
    """Return whether an error, or one that it was raised from, means that no memory was left."""
    while error is not None:
        if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
            return True
        if isinstance(error, Exception) and any(words in str(error).lower() for words in _WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False


def raise_shortage(error: BaseException, doing: str) -> None:
    """Raise ShortageError if `error` means that no memory was left. doing: what failed, such as "reading x"."""
    if is_shortage(error):
        raise ShortageError(f"not enough memory for {doing}: {ADVICE}") from error


def process_left(proc: Path = Path("/proc/self")) -> int | None:
    """Bytes that the limits of the shell leave to this process; None if there are none."""
    try:
        resource: Any = import_module("resource")
        pages = [int(number) for number in (proc / "statm").read_text(encoding="ascii").split()]
    except (ImportError, OSError, ValueError):
        return None
    used = {"RLIMIT_AS": pages[0], "RLIMIT_DATA": pages[5]}  # all of its addresses; data and stack
    left = [
        limit - used[name] * _PAGE
        for name in used
        if (limit := resource.getrlimit(getattr(resource, name))[0]) != resource.RLIM_INFINITY
    ]
    return max(0, min(left)) if left else None


def group_left(root: Path = _GROUPS, proc: Path = Path("/proc/self")) -> int | None:
    """Bytes that the container leaves, files it has cached counted as free; None without a limit."""
    left = [limit - used for limit, used in _limits(root, proc)]
    return max(0, min(left)) if left else None


def group_limit(root: Path = _GROUPS, proc: Path = Path("/proc/self")) -> int | None:
    """Bytes that the container may take in all; None without a limit."""
    return min((limit for limit, _ in _limits(root, proc)), default=None)


def _limits(root: Path, proc: Path) -> Iterator[tuple[int, int]]:
    """(limit, used) of every group that this process is in and that has a limit, in either version's files."""
    paths = _paths(proc)
    for folder in _upwards(root, paths.get("", "/")):
        yield from _pair(folder, "memory.max", "memory.current", ("inactive_file", "active_file"))
    for folder in _upwards(root / "memory", paths.get("memory", "/")):
        names = ("total_inactive_file", "total_active_file")
        yield from _pair(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", names)


def _paths(proc: Path) -> dict[str, str]:
    """Return controller ("" for version 2) -> the path of this process's group."""
    try:
        lines = (proc / "cgroup").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return {}
    parts = [line.split(":", 2) for line in lines if line.count(":") >= 2]
    return {name: path for _, names, path in parts for name in names.split(",")}


def _upwards(root: Path, path: str) -> Iterator[Path]:
    """Yield the folder of a group and those above it; a container often sees its own as the root."""
    inside = Path(path.lstrip("/"))
    for place in (inside, *inside.parents):
        yield root / place


def _pair(folder: Path, limit: str, used: str, cached: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    try:
        most, now = (int((folder / name).read_text(encoding="ascii")) for name in (limit, used))
    except (OSError, ValueError):
        return
    if most < _NO_LIMIT:
        yield most, max(0, now - _cached(folder, cached))


def _cached(folder: Path, names: tuple[str, ...]) -> int:
    """Bytes of files in memory, which the system frees if programs need them."""
    try:
        lines = [line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines()]
        return sum(int(value) for name, value in lines if name in names)
    except (OSError, ValueError):
        return 0
