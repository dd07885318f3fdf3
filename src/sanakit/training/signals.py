"""Signals to a run, polled between two steps: stop, save, preview; sent to the process, or as a file in its folder.

A run that is asked to stop finishes its step, so that what it saves is whole.

    Ctrl-C, SIGTERM, SIGHUP (its terminal is closed), `touch RUN/stop`      finish the step, save, end
    SIGUSR1, `touch RUN/save`                                               save now
    SIGUSR2, `touch RUN/preview`                                            draw a preview now
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Literal

Signal = Literal["stop", "save", "preview"]
SIGNALS: tuple[Signal, ...] = ("stop", "save", "preview")

_MEANINGS: dict[str, Signal] = {
    "SIGINT": "stop",
    "SIGTERM": "stop",
    "SIGHUP": "stop",
    "SIGUSR1": "save",
    "SIGUSR2": "preview",
}


class SignalHandler:
    """Collects signals while it is open; a second one that stops acts as it did before.

    Hears no signals outside the main thread, where Python handles none, nor those that the parent ignores.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._signals: set[Signal] = set()
        self._before: dict[int, Any] = {}
        self._numbers = {
            getattr(signal, name): meaning for name, meaning in _MEANINGS.items() if hasattr(signal, name)
        }

    def __enter__(self) -> SignalHandler:
        if threading.current_thread() is threading.main_thread():
            for number in self._numbers:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *failure: object) -> None:
        self._release(self._before)

    def take(self) -> frozenset[Signal]:
        """Return the signals since the last call. Files that made one are removed."""
        for name in SIGNALS:
            file = self.folder / name
            if file.is_file():
                file.unlink(missing_ok=True)
                self._signals.add(name)
        taken, self._signals = frozenset(self._signals), set()
        return taken

    def _note(self, number: int, frame: FrameType | None) -> None:
        meaning = self._numbers[number]
        self._signals.add(meaning)
        if meaning == "stop":
            self._release([n for n, known in self._numbers.items() if known == "stop"])

    def _release(self, numbers: Iterable[int]) -> None:
        for number in [n for n in numbers if n in self._before]:
            signal.signal(number, self._before.pop(number))


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM and SIGHUP act as Ctrl-C does in the block, so that work which is written on Ctrl-C is not lost."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    before = {n: signal.signal(n, _interrupt) for n in numbers if signal.getsignal(n) is not signal.SIG_IGN}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
