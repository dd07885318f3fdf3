"""When the command began, so that the time spent on imports is told too."""

from __future__ import annotations

import time

_began = time.perf_counter()


def start() -> None:
    """The command begins now."""
    global _began
    _began = time.perf_counter()


def seconds() -> float:
    """Seconds since the command began."""
    return time.perf_counter() - _began
