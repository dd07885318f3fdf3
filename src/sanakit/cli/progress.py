"""What is seen while pictures are drawn: bars with an estimate of the time left on a terminal, else nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import Progress, TaskID

from sanakit.cli.fitted import TaskLine
from sanakit.pipeline.events import Event, PictureDone, StageDone, StageStarted, Step

_LABELS = {"load": "loading", "text": "reading the prompt", "denoise": "drawing", "decode": "developing"}


class Display(Protocol):
    """Sees every event."""

    def see(self, event: Event) -> None:
        """One event has come."""


class Silent:
    """Shows nothing: for pipes, files and `--json`."""

    def see(self, event: Event) -> None:
        """Does nothing."""


class Bars:
    """One bar per running stage on stderr, and one over all pictures where there are several."""

    def __init__(self, console: Console, pictures: int) -> None:
        self.progress = Progress(TaskLine(), console=console, transient=True)
        self.all = self.progress.add_task("pictures", total=pictures) if pictures > 1 else None
        self.task: TaskID | None = None

    def see(self, event: Event) -> None:
        """Starts, moves or removes a bar."""
        if isinstance(event, StageStarted):
            self.task = self.progress.add_task(_LABELS[event.stage], total=event.total or None)
        elif isinstance(event, Step) and self.task is not None:
            self.progress.update(self.task, completed=event.index + 1)
        elif isinstance(event, StageDone) and self.task is not None:
            self.progress.remove_task(self.task)
            self.task = None
        elif isinstance(event, PictureDone) and self.all is not None:
            self.progress.advance(self.all)

    def __enter__(self) -> Bars:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()


@contextmanager
def open_display(pictures: int, quiet: bool) -> Iterator[Display]:
    """Bars when stderr is a terminal and `quiet` is not set, else nothing."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield Silent()
        return
    with Bars(console, pictures) as bars:
        yield bars
