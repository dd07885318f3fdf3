"""Every picture of a set decoded once, by threads: what can't be read, and what the others look like."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from sanakit.base.errors import PictureError
from sanakit.data.items import PictureSet
from sanakit.data.looks import Look, look_at

_AHEAD = 8


@dataclass(frozen=True)
class Finding:
    """What was found of one picture: its look, or why it can't be read."""

    index: int
    look: Look | None
    error: str = ""


def examine(pictures: PictureSet, workers: int = 2) -> Iterator[Finding]:
    """The findings of all pictures, in order. Whoever stops asking stops the work."""
    waiting: deque[Future[Finding]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="examine")
    try:
        for index in range(len(pictures)):
            waiting.append(pool.submit(_examine_one, pictures, index))
            if len(waiting) >= _AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _examine_one(pictures: PictureSet, index: int) -> Finding:
    try:
        return Finding(index, look_at(pictures.read(index)))
    except PictureError as error:
        return Finding(index, None, str(error))
