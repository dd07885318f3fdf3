"""The progress bar of every command: a line per task at the foot of a terminal, elsewhere a sentence now and then.

A line is made of pieces in a fixed order and fits every width: in a narrow terminal the less important pieces are left
out first, and the count and the time left never.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import TypeVar

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.measure import Measurement
from rich.text import Text

from sanakit.base.echo import printable, printable_lines
from sanakit.cli.say import notify

__all__ = ["ProgressBar", "fit", "span"]

T = TypeVar("T")
_LINE_SECONDS = 30.0  # between two sentences, if stderr isn't a terminal
_BAR_CELLS = (6, 40)  # at least and at most
_IMPORTANT = ("count", "left", "loss", "label", "bar", "speed", "lr", "images", "mfu", "norm", "elapsed")
"""Pieces of a line, the most important first; others, such as the parts of a loss, come last."""


@dataclass(kw_only=True)
class _Task:
    """How far one task is. `figures`: further pieces of its line by name, such as a loss."""

    label: str
    done: int
    total: int
    first: int  # what was done when the task began
    began: float  # by the clock of time.monotonic
    remaining: float | None = None
    figures: Mapping[str, str] = field(default_factory=dict)

    def left(self) -> float | None:
        """Seconds left: as given, else by the pace since the task began; None if nothing is known yet."""
        if self.remaining is not None or self.done <= self.first:
            return self.remaining
        return (time.monotonic() - self.began) / (self.done - self.first) * max(0, self.total - self.done)

    def texts(self) -> dict[str, str]:
        """Return the pieces of its line in their order; "bar" stands for the bar."""
        label = {"label": f"{printable(self.label, 60):<19}"} if self.label else {}
        return {
            **label, "bar": "", "count": f"{self.done}/{self.total or '?'}", "left": f"left {span(self.left())}",
            **self.figures, "elapsed": f"elapsed {span(time.monotonic() - self.began)}",
        }  # fmt: skip

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        share = self.done / self.total if self.total else 0.0
        yield Text(
            fit(self.texts(), share, options.max_width, options.ascii_only), no_wrap=True, overflow="crop"
        )

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(1, options.max_width)


class ProgressBar:
    """Shows tasks while it is open. `shown` says whether there is a terminal to show them on.

    quiet: show nothing. sentences: if stderr isn't a terminal, say how far a task is every half minute.
    keep: leave the last line on the terminal.
    """

    def __init__(
        self, console: Console | None = None, quiet: bool = False, sentences: bool = True, keep: bool = False
    ) -> None:
        self.console = console or Console(stderr=True)
        self.shown = self.console.is_terminal and not quiet
        self.sentences = sentences and not quiet and not self.shown
        self._tasks: dict[str, _Task] = {}
        self._spoke = time.monotonic()
        self._live = Live(self, console=self.console, refresh_per_second=4, transient=not keep)

    def update(
        self,
        label: str,
        done: int,
        total: int,
        remaining: float | None = None,
        figures: Mapping[str, str] | None = None,
    ) -> None:
        """`done` of `total` (0 if unknown) is done; a new label begins a task, and "" stands for one without a name.

        remaining: seconds, if they are known better than by the pace so far. figures: further texts by name.
        """
        now = time.monotonic()
        if label not in self._tasks:
            self._tasks[label] = _Task(label=label, done=done, total=total, first=done, began=now)
        task = self._tasks[label]
        task.done, task.total, task.remaining = done, total, remaining
        task.figures = figures or {}
        if self.sentences and now - self._spoke >= _LINE_SECONDS:
            self._spoke = now
            notify(f"{label}: {done} of {total}, left {span(task.left())}")

    def follow(self, label: str, things: Iterable[T], total: int) -> Iterator[T]:
        """Yield `things` and count them."""
        self.update(label, 0, total)
        for done, thing in enumerate(things, start=1):
            yield thing
            self.update(label, done, total)

    def remove(self, label: str) -> None:
        """Show a task no longer."""
        self._tasks.pop(label, None)

    def print(self, text: object) -> None:
        """Print a message above the lines."""
        self.console.print(printable_lines(text), highlight=False, markup=False)

    def __rich__(self) -> Group:
        return Group(*list(self._tasks.values()))

    def __enter__(self) -> ProgressBar:
        if self.shown:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.shown:
            self._live.stop()


def fit(texts: Mapping[str, str], share: float, width: int, plain: bool = False) -> str:
    """Join texts to one line of at most `width` cells; those that don't fit are left out, least important first.

    texts: name -> text in the order of the line, "bar" stands for the bar. share: of the bar, 0 to 1. plain: in ASCII.
    """
    ranks = {name: rank for rank, name in enumerate(_IMPORTANT)}
    sizes = {name: _BAR_CELLS[0] if name == "bar" else len(text) for name, text in texts.items()}
    shown: set[str] = set()
    for name in sorted(texts, key=lambda name: ranks.get(name, len(ranks))):
        if sum(sizes[each] + 1 for each in {*shown, name}) <= width + 1:
            shown.add(name)
    rest = sum(sizes[name] + 1 for name in shown - {"bar"})
    bar = _bar(share, min(_BAR_CELLS[1], max(_BAR_CELLS[0], width - rest)), plain)
    return " ".join(bar if name == "bar" else text for name, text in texts.items() if name in shown)[:width]


def span(seconds: float | None) -> str:
    """Return `1:02:03`, or `?` if nothing is known."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _bar(share: float, cells: int, plain: bool) -> str:
    full = round(cells * min(1.0, max(0.0, share)))
    done, left = ("#", "-") if plain else ("━", "╌")
    return done * full + left * (cells - full)
