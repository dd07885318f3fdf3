"""Long walks, told on stderr: a bar with the time left on terminals, a line every half minute elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import Progress, TaskID

from sanakit.base.echo import printable
from sanakit.cli.fitted import TaskLine, span
from sanakit.cli.say import say

T = TypeVar("T")
_LINE_SECONDS = 30.0


class Report(Protocol):
    """What a walk says as it goes: `remaining` are seconds, None where nothing is known yet."""

    @property
    def done(self) -> int:
        """How many are done."""

    @property
    def total(self) -> int:
        """Of how many."""

    @property
    def remaining(self) -> float | None:
        """Seconds."""


class Bar:
    """One bar for every kind of work, moved by the reports of a walk; off terminals, a line now and then."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        shown = self.console.is_terminal
        self.progress = Progress(TaskLine(), console=self.console, transient=True, disable=not shown)
        self._tasks: dict[str, TaskID] = {}
        self._begun: dict[str, tuple[float, int]] = {}
        self._told = time.monotonic()

    def see(self, label: str, report: Report) -> None:
        """A report has come."""
        self.count(label, report.done, report.total, report.remaining)

    def follow(self, label: str, things: Iterable[T], total: int) -> Iterator[T]:
        """Things as they come, counted."""
        self.count(label, 0, total)
        for done, thing in enumerate(things, start=1):
            yield thing
            self.count(label, done, total)

    def count(self, label: str, done: int, total: int, remaining: float | None = None) -> None:
        """`done` of `total` things are done; without `remaining` the time left is guessed by the pace so far."""
        left = span(self._guess(label, done, total) if remaining is None else remaining)
        if not self.console.is_terminal:
            self._tell(f"{label}: {done} of {total}, left {left}")
            return
        if label not in self._tasks:
            self._tasks[label] = self.progress.add_task(printable(label, 60), total=total, left="?")
        self.progress.update(self._tasks[label], completed=done, total=total, left=left)

    def _guess(self, label: str, done: int, total: int) -> float | None:
        """Seconds, by how long it took from the first count to this one."""
        begun, first = self._begun.setdefault(label, (time.monotonic(), done))
        return (time.monotonic() - begun) / (done - first) * (total - done) if done > first else None

    def _tell(self, line: str) -> None:
        if time.monotonic() - self._told >= _LINE_SECONDS:
            self._told = time.monotonic()
            say(line, err=True)

    def __enter__(self) -> Bar:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()
