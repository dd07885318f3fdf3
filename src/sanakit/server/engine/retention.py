"""How long the history lasts: finished jobs leave by their age, or once enough newer pictures are there.

A job goes as a whole, its row first and its files after it: whoever reads sees all of it or nothing, and a process that
is killed in between leaves files that no job has, which the next engine of the folder removes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from sanakit.base.errors import SanakitError
from sanakit.server.engine.config import EngineConfig
from sanakit.server.engine.errors import JobNotFoundError
from sanakit.server.engine.store import Store

_LOG = logging.getLogger("sanakit.server")
_DAY = 86400.0

PAUSE = 60.0
"""Seconds between two looks."""

SETTLED = 600.0
"""Seconds for which a job stays after its end in any case: whoever waited for it has yet to fetch its pictures."""


class Retention:
    """Forgets old jobs, in a thread of its own, if anything is bounded. forget: removes a job with its files."""

    def __init__(self, config: EngineConfig, store: Store, forget: Callable[[str], None]) -> None:
        self._days, self._pictures = config.keep_days, config.keep_pictures
        self._store, self._forget = store, forget
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="sanakit-retention", daemon=True)

    def start(self) -> None:
        """Begin, if anything is bounded."""
        if self._days is not None or self._pictures is not None:
            self._thread.start()

    def stop(self) -> None:
        """End after the job that is being forgotten."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()

    def apply(self, now: float) -> int:
        """Forget what is older than is kept, and return how many jobs that were. now: seconds since the epoch."""
        before = None if self._days is None else now - self._days * _DAY
        gone = 0
        for job_id in self._store.expired(now - SETTLED, before, self._pictures):
            if self._ended.is_set():
                break
            with suppress(JobNotFoundError):  # somebody else deleted it just now
                self._forget(job_id)
                gone += 1
        return gone

    def _work(self) -> None:
        while not self._ended.is_set():
            try:
                gone = self.apply(time.time())
            except SanakitError:  # such as a disk that can't be written: it may be again
                _LOG.exception("old jobs can't be forgotten")
            else:
                if gone:
                    _LOG.info("%d old %s forgotten", gone, "job was" if gone == 1 else "jobs were")
            self._ended.wait(PAUSE)
