"""Turns a function that reports through a callback into a generator that yields the reports.

Solvers are plain functions with a callback, callers want a generator of events: the function runs in a thread of its
own, and the two take turns. While the caller holds an item the function waits, so nothing ever runs side by side and
the caller may do as it likes between two items: look, free memory, or stop.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class _End(Generic[Result]):
    """The last thing the function says: its result, or what it raised."""

    result: Result | None = None
    error: BaseException | None = None


class _Stopped(BaseException):
    """Raised inside the function when the caller wants nothing more; no `except Exception` holds it up."""


def relay(work: Callable[[Callable[[Item], None]], Result]) -> Generator[Item, None, Result]:
    """Yields what `work` hands to the `emit` it is given, and returns what `work` returns.

    An exception of `work` is raised here. Closing the generator, or an exception in the caller such as Ctrl-C, makes
    the pending or next `emit` stop `work`, and waits for that.
    """
    items: SimpleQueue[Item | _End[Result]] = SimpleQueue()
    turns: SimpleQueue[bool] = SimpleQueue()

    def emit(item: Item) -> None:
        items.put(item)
        if not turns.get():
            raise _Stopped

    def run() -> None:
        try:
            items.put(_End(result=work(emit)))
        except BaseException as error:  # carried over to the caller's thread, whatever it is
            items.put(_End(error=error))

    thread = threading.Thread(target=run, name="sanakit-relay", daemon=True)
    thread.start()
    try:
        while not isinstance(item := items.get(), _End):
            yield item
            turns.put(True)
    finally:
        turns.put(False)
        thread.join()
    if item.error is not None:
        raise item.error
    return item.result  # type: ignore[return-value]
