"""What a run is asked from outside, heard between two steps: stop, save, preview; by signal or by a file in its folder.

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
from typing import Literal

Wish = Literal["stop", "save", "preview"]
WISHES: tuple[Wish, ...] = ("stop", "save", "preview")

_SIGNALS: dict[str, Wish] = {
    "SIGINT": "stop",
    "SIGTERM": "stop",
    "SIGHUP": "stop",
    "SIGUSR1": "save",
    "SIGUSR2": "preview",
}


class Control:
    """While open, collects wishes; a second signal that stops acts as it did before.

    Hears no signals outside the main thread, where Python handles none, nor those that the parent ignores.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._wishes: set[Wish] = set()
        self._before: dict[int, signal.Handlers | object] = {}
        self._numbers = {
            getattr(signal, name): wish for name, wish in _SIGNALS.items() if hasattr(signal, name)
        }

    def __enter__(self) -> Control:
        if threading.current_thread() is threading.main_thread():
            for number in self._numbers:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *failure: object) -> None:
        self._release(self._before)

    def take(self) -> frozenset[Wish]:
        """The wishes since the last call. Files that made a wish are removed."""
        for wish in WISHES:
            file = self.folder / wish
            if file.is_file():
                file.unlink(missing_ok=True)
                self._wishes.add(wish)
        taken, self._wishes = frozenset(self._wishes), set()
        return taken

    def _note(self, number: int, frame: FrameType | None) -> None:
        wish = self._numbers[number]
        self._wishes.add(wish)
        if wish == "stop":
            self._release([n for n, meaning in self._numbers.items() if meaning == "stop"])

    def _release(self, numbers: Iterable[int]) -> None:
        for number in [n for n in numbers if n in self._before]:
            signal.signal(number, self._before.pop(number))  # type: ignore[arg-type]


@contextmanager
def interruptible() -> Iterator[None]:
    """In the block, SIGTERM and SIGHUP act as Ctrl-C does, so that work which is written on Ctrl-C is not lost."""
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
