"""Work for the next steps, done by threads while the present step computes; asked for by step, in any order.

with Prefetch(produce, workers=4, ahead=8) as batches:
    for step in range(start, stop):
        train(batches(step))            # batches.waited: seconds spent in this call, all steps together
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

from sanakit.base.errors import ConfigError

T = TypeVar("T")


class Prefetch(Generic[T]):
    """`produce(step)` for the step that is asked for and the `ahead - 1` after it; a jump forgets what it leaves.

    produce: called in threads, several at once; its result depends on the step alone. An error in it is raised where
    the step is asked for. Raises ConfigError for less than one worker or step.

    Attributes:
        waited: seconds that the consumer has waited, in all.
    """

    def __init__(self, produce: Callable[[int], T], *, workers: int = 2, ahead: int = 4) -> None:
        if workers < 1 or ahead < 1:
            raise ConfigError(f"reading needs 1 worker and 1 step ahead or more, not {workers} and {ahead}.")
        self.waited = 0.0
        self._produce, self._ahead = produce, ahead
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="prefetch")
        self._pending: dict[int, Future[T]] = {}

    def __call__(self, step: int) -> T:
        """What was produced for a step; waits for it where it is not done yet."""
        wanted = range(step, step + self._ahead)
        for other in [other for other in self._pending if other not in wanted]:
            self._pending.pop(other).cancel()
        for other in wanted:
            if other not in self._pending:
                self._pending[other] = self._pool.submit(self._produce, other)
        began = time.monotonic()
        try:
            return self._pending.pop(step).result()
        finally:
            self.waited += time.monotonic() - began

    def close(self) -> None:
        """Start nothing more, and wait for what is under way."""
        self._pending.clear()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Prefetch[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
