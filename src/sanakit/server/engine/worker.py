"""The thread of an engine: it takes turns with whatever draws, an `Executor`, until it is told to stop.

An executor is this process (`scheduler.py`) or replicas of it elsewhere (`dispatcher.py`). Both take pictures from the
book of jobs, and both tell it what became of them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

from sanakit.server.engine.book import Book
from sanakit.server.engine.catalogue import Catalogue
from sanakit.server.engine.config import EngineConfig
from sanakit.server.engine.files import Files
from sanakit.server.engine.models import Models
from sanakit.text import CacheInfo

_LOG = logging.getLogger("sanakit.server")
_PAUSE = 1.0
"""Seconds after a turn that failed, so that a fault that stays fills no log."""
_LONG_STEP = 30.0
"""Seconds that a step may take before the worker is left behind when an engine stops."""


class Executor(Protocol):
    """What draws the pictures of a book. Only `drawing` and `prompts` are called by other threads than the worker's."""

    @property
    def drawing(self) -> int:
        """Pictures on their way."""

    def prompts(self) -> CacheInfo:
        """Return hits and misses of encoded prompts."""

    def warm(self) -> None:
        """Do what the first picture should not wait for; never raises."""

    def has_work(self, admits: bool) -> bool:
        """Return whether a turn would do something. Called with the book's lock held."""

    def turn(self, admits: bool) -> None:
        """Do what is next, at most a step. admits: whether pictures may be begun."""

    def close(self) -> None:
        """Let go of pictures that are on their way."""


MakeExecutor = Callable[[EngineConfig, Catalogue, Models, Book, Files], Executor]


class Worker:
    """The thread. ready: set once it draws."""

    def __init__(self, book: Book, executor: Executor) -> None:
        self._book, self._executor = book, executor
        self._draining = self._halted = False
        self.ready = threading.Event()
        self._thread = threading.Thread(target=self._work, name="sanakit-worker", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def halt(self, *, drain: bool) -> None:
        """Begin nothing more, and stop between two steps: the next ones, or with `drain` the last of all pictures."""
        with self._book.changed:
            self._draining, self._halted = True, self._halted or not drain
            self._book.changed.notify_all()

    def join(self, seconds: float) -> None:
        """Wait until the worker has stopped, `seconds` for its pictures and as long again for its step."""
        if self._thread.ident is not None:
            self._thread.join(seconds)
            self.halt(drain=False)
            self._thread.join(max(seconds, _LONG_STEP))
        self._book.put_back()

    def _work(self) -> None:
        self._executor.warm()
        self.ready.set()
        while self._turn():
            pass
        self._executor.close()

    def _turn(self) -> bool:
        """Do what is next; return False when the worker is to end."""
        with self._book.changed:
            self._book.changed.wait_for(self._has_news)
            if self._is_over():
                return False
            admits = not self._draining
        try:
            self._executor.turn(admits)
        except Exception:
            # Such as a full disk, on which no job can be begun: jobs wait, and it may have room again.
            _LOG.exception("the worker goes on after a fault")
            time.sleep(_PAUSE)
        return True

    def _has_news(self) -> bool:
        return self._is_over() or self._executor.has_work(not self._draining)

    def _is_over(self) -> bool:
        return self._halted or (self._draining and not self._executor.drawing)
