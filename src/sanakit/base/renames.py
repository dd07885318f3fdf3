"""Renames that `os` does not have: two names exchanged in one step, and one given only where nothing has it.

Linux has both in one call. Elsewhere, and on file systems that refuse, callers take another way.
"""

from __future__ import annotations

import ctypes
import errno
import os
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["exchange", "rename_new"]

_AT_FDCWD = -100
_NOREPLACE, _EXCHANGE = 1, 2  # flags of renameat2(2)
# What says that this system or file system does not know the call, not that the names are at fault.
_UNKNOWN = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM)


def exchange(one: Path, other: Path) -> bool:
    """Swap what two names stand for, in one step. False where that can't be had here. Raises OSError."""
    return _rename(one, other, _EXCHANGE)


def rename_new(source: Path, target: Path) -> bool:
    """Give a file or folder a name that nothing has, in one step. False where that can't be had here.

    Raises FileExistsError where something has the name, and OSError.
    """
    return _rename(source, target, _NOREPLACE)


def _rename(source: Path, target: Path, flag: int) -> bool:
    call = _renameat2()
    if call is None:
        return False
    if call(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flag) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNKNOWN:
        return False
    raise OSError(number, os.strerror(number), str(source), None, str(target))


@cache
def _renameat2() -> Any:
    """The C library's function; None where there is none."""
    try:
        return getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    except (OSError, TypeError):
        return None
