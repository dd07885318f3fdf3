"""Memory: limits of shells and containers are read, and errors that mean a shortage are known."""

from __future__ import annotations

import errno
import resource
from pathlib import Path

import pytest

from sanakit.base.errors import ShortageError
from sanakit.base.memory import group_left, group_limit, is_shortage, process_left, raise_shortage


def write(folder: Path, **values: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in values.items():
        (folder / name.replace("__", ".")).write_text(f"{value}\n")


def test_a_container_of_version_2_and_the_groups_above_it(tmp_path: Path) -> None:
    proc, root = tmp_path / "proc", tmp_path / "cgroup"
    write(proc, cgroup="0::/app.slice/job")
    assert (group_left(root, proc), group_limit(root, proc)) == (None, None)
    stat = "anon 5\ninactive_file 100\nactive_file 50\nfile 900"
    write(root / "app.slice" / "job", memory__max="max", memory__current=700, memory__stat=stat)
    assert group_left(root, proc) is None
    write(root / "app.slice", memory__max=1000, memory__current=700, memory__stat=stat)
    assert (group_left(root, proc), group_limit(root, proc)) == (450, 1000)
    write(root, memory__max=800, memory__current=900)
    assert (group_left(root, proc), group_limit(root, proc)) == (0, 800)


def test_a_container_of_version_1(tmp_path: Path) -> None:
    proc, root = tmp_path / "proc", tmp_path / "cgroup"
    write(proc, cgroup="5:cpu,cpuacct:/\n4:memory:/job\n0::/")
    write(root / "memory", memory__limit_in_bytes=9223372036854771712, memory__usage_in_bytes=5)
    assert group_left(root, proc) is None
    stat = "total_inactive_file 10\ntotal_active_file 5\ninactive_file 999"
    write(root / "memory" / "job", memory__limit_in_bytes=100, memory__usage_in_bytes=60, memory__stat=stat)
    assert (group_left(root, proc), group_limit(root, proc)) == (55, 100)


def test_the_limits_of_the_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, statm="100 50 20 5 0 60 0")
    limits = {resource.RLIMIT_AS: 10**6, resource.RLIMIT_DATA: resource.RLIM_INFINITY}
    monkeypatch.setattr(resource, "getrlimit", lambda which: (limits[which], limits[which]))
    assert process_left(tmp_path) == 10**6 - 100 * 4096
    limits[resource.RLIMIT_DATA] = 300_000
    assert process_left(tmp_path) == 300_000 - 60 * 4096
    limits[resource.RLIMIT_AS] = 1
    assert process_left(tmp_path) == 0
    assert process_left(tmp_path / "absent") is None


SHORTAGES = [
    MemoryError(),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory: you tried to"
    ),
    RuntimeError("unable to mmap 12 bytes from file <x>: Cannot allocate memory (12)"),
    RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
    RuntimeError("std::bad_alloc"),
]


@pytest.mark.parametrize("error", SHORTAGES, ids=lambda error: str(error)[:20])
def test_a_shortage_is_known_whoever_says_it(error: Exception) -> None:
    with pytest.raises(ShortageError, match=r"not enough memory for reading x: .*choose a smaller size"):
        raise_shortage(error, "reading x")
    wrapped = ValueError("something failed")
    wrapped.__cause__ = error
    assert is_shortage(wrapped)


def test_other_errors_are_no_shortage() -> None:
    for error in (
        RuntimeError("shapes differ"),
        OSError(errno.ENOSPC, "No space left on device"),
        KeyError("x"),
    ):
        raise_shortage(error, "reading x")
        assert not is_shortage(error)
