"""Ctrl-C between two steps: a run that is asked to stop finishes its step, so that what it saves is whole."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class Interruption:
    """While open, the first SIGINT or SIGTERM only sets `asked`; a second one acts as it did before.

    Does nothing outside the main thread, where Python handles no signals, and for signals that the parent ignores.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, signal.Handlers | object] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *failure: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self.__exit__()
