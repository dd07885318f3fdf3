"""Long walks through a set, seen on the terminal: a bar with the time left on stderr, nothing in pipes and files."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


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
    """One bar for every kind of work, moved by the reports of a walk."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description:<19}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("left {task.fields[left]}"),
        )  # fmt: skip
        self.progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._tasks: dict[str, TaskID] = {}

    def see(self, label: str, report: Report) -> None:
        """A report has come."""
        self.count(label, report.done, report.total, report.remaining)

    def count(self, label: str, done: int, total: int, remaining: float | None = None) -> None:
        """`done` of `total` things are done."""
        if label not in self._tasks:
            self._tasks[label] = self.progress.add_task(label, total=total, left="?")
        self.progress.update(self._tasks[label], completed=done, total=total, left=span(remaining))

    def __enter__(self) -> Bar:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()


def span(seconds: float | None) -> str:
    """`1:02:03`, or `?` where nothing is known."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
