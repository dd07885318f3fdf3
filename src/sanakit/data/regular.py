"""Opening what is a regular file and nothing else: a pipe would wait for a writer for ever, a device has no end."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def open_regular(path: Path) -> BinaryIO:
    """Return the file, for reading. Raises OSError, also if it isn't a regular file."""
    _refuse_others(os.stat(path), path)
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(path, flags)  # not blocking: a pipe that has taken the file's place opens at once
    try:
        _refuse_others(os.fstat(handle), path)
        return open(handle, "rb")
    except OSError:
        os.close(handle)
        raise


def _refuse_others(facts: os.stat_result, path: Path) -> None:
    kind = kind_of(facts)
    if kind is not None:
        raise OSError(None, f"it is {kind}", str(path))


def kind_of(facts: os.stat_result) -> str | None:
    """Return the kind of a file that isn't regular, None for a regular one."""
    if stat.S_ISREG(facts.st_mode):
        return None
    return _KINDS.get(stat.S_IFMT(facts.st_mode), "not a regular file")
