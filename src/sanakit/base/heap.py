"""The heap for large CPU tensors: it keeps its pages.

The C library's allocator asks the system for fresh pages for every tensor above a few MiB and hands them back when the
tensor dies; the system clears them each time. A decoder that moves through maps of 128 MiB spends more on that than on
arithmetic. `keep_pages` makes glibc reuse them; `give_back` returns what is free, once a part has done its work.
"""

from __future__ import annotations

import ctypes
from functools import cache

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # names of mallopt's parameters in malloc.h
_LARGEST = 2**31 - 1
_STANDARD = {_TRIM_THRESHOLD: 128 * 1024, _MMAP_MAX: 65536}


def keep_pages() -> bool:
    """Let this process keep freed memory from now on. False if the C library can't (not glibc)."""
    return _set({_TRIM_THRESHOLD: _LARGEST, _MMAP_MAX: 0})


def keep_no_pages() -> bool:
    """Undo `keep_pages`: glibc's own settings. False if there are none."""
    return _set(_STANDARD) and give_back()


def give_back() -> bool:
    """Return free memory to the system; costs a few milliseconds. False if the C library can't."""
    trim = getattr(_c_library(), "malloc_trim", None)
    if trim is None:
        return False
    trim(ctypes.c_size_t(0))
    return True


def free_bytes() -> int:
    """Bytes that this process holds without using them; 0 if unknown."""
    library = _c_library()
    info = getattr(library, "mallinfo2", None)
    if info is None:
        return 0
    info.restype = _MallInfo
    return int(info().fordblks)


class _MallInfo(ctypes.Structure):
    """struct mallinfo2 of malloc.h; fordblks is what is free in all arenas."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in [
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        ]
    )


def _set(values: dict[int, int]) -> bool:
    option = getattr(_c_library(), "mallopt", None)
    return option is not None and all([option(name, value) for name, value in values.items()])


@cache
def _c_library() -> ctypes.CDLL | None:
    """Return the C library of this process; None on systems that do not load it by this way."""
    try:
        return ctypes.CDLL(None)
    except (OSError, TypeError):
        return None
