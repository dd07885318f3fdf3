"""Quantities as text: bytes, durations, and the names of dtypes."""

from __future__ import annotations


def size_text(count: int) -> str:
    """Bytes as `1.5 GiB` or `12.0 MiB`."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def duration_text(seconds: float) -> str:
    """Seconds as `40 s`, `12 min` or `3.5 h`; at least one second."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def dtype_name(dtype: object) -> str:
    """Return the name of a torch dtype without its module: `bfloat16`."""
    return str(dtype).removeprefix("torch.")
