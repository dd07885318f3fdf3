"""Locks that end with the process that holds them, however it ends: of an open file, and of a place by a lock file.

Where a file system knows no locks (and on Windows), a lock file of its own name stands for one: it tells the process,
and counts until that process is known to be gone.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from sanakit.base.errors import OutputError
from sanakit.base.json_text import read_object

_FCNTL: Any = import_module("fcntl") if os.name == "posix" else None

_BUSY = (errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK)
_PAUSE = 0.02  # seconds between two looks at a lock that is waited for


def try_lock(handle: int) -> bool | None:
    """Lock an open file for as long as it stays open. False: another has it. None: there are no locks here."""
    if _FCNTL is None:
        return None
    try:
        _FCNTL.flock(handle, _FCNTL.LOCK_EX | _FCNTL.LOCK_NB)
    except OSError as error:
        return False if error.errno in _BUSY else None
    return True


def is_same_file(handle: int, path: Path) -> bool:
    """Return whether an open file is still the one that has this name."""
    try:
        mine, named = os.fstat(handle), os.stat(path, follow_symlinks=False)
    except OSError:
        return False
    return (mine.st_dev, mine.st_ino) == (named.st_dev, named.st_ino)


@contextmanager
def hold(path: Path, doing: str, *, wait: float = 0.0) -> Iterator[None]:
    """Be the only one who holds the lock file `path` while the block runs; it is gone afterwards.

    doing: what the holder does there, told to others, such as "trains". wait: seconds to wait for another holder.
    Raises OutputError that says who holds it, or why the file can't be made.
    """
    until = time.monotonic() + wait
    try:
        while (handle := _take(path, doing)) is None:
            if time.monotonic() >= until:
                raise OutputError(f"{path.parent} is in use: {_holder(path)}")
            time.sleep(_PAUSE)
    except OSError as error:
        raise OutputError(f"can't lock {path.parent}: {error.strerror or error}") from error
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(handle)


def _take(path: Path, doing: str) -> int | None:
    """Return the open lock file, locked; None if another holds it."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        locked = try_lock(handle)
        if locked and not is_same_file(handle, path):  # its holder went, and took the name away
            os.close(handle)
            continue
        if locked is None:
            os.close(handle)
            return _take_by_name(path, doing)
        if not locked:
            os.close(handle)
            return None
        _sign(handle, doing)
        return handle


def _take_by_name(path: Path, doing: str) -> int | None:
    """Without locks: whoever signs the file has it."""
    signed = _read(path)
    if signed is not None and not _is_gone(signed):
        return None
    with suppress(FileNotFoundError):
        path.unlink()
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return None
    _sign(handle, doing)
    return handle


def _sign(handle: int, doing: str) -> None:
    """Say in the file who holds it; a full disk must not keep anybody from locking."""
    facts = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time(), "doing": doing}
    with suppress(OSError):
        os.truncate(handle, 0)
        os.write(handle, json.dumps(facts).encode())


def _read(path: Path) -> dict[str, Any] | None:
    try:
        facts = read_object(path)
        return {"pid": int(facts["pid"]), "host": str(facts["host"]), "since": float(facts["since"]),
                "doing": str(facts["doing"])}  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_gone(signed: dict[str, Any]) -> bool:
    """Return whether the process that signed is known to be gone: of this machine, and without such a number."""
    if signed["host"] != socket.gethostname() or os.name != "posix":
        return False
    try:
        os.kill(signed["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _holder(path: Path) -> str:
    """Who holds a lock file, and what can be done."""
    signed = _read(path)
    if signed is None:
        return "another process has locked it; wait for it, or choose another folder"
    since = time.strftime("%H:%M", time.localtime(signed["since"]))
    return (
        f"process {signed['pid']} on {signed['host']} {signed['doing']} there since {since}; "
        "wait for it, stop it, or choose another folder"
    )
