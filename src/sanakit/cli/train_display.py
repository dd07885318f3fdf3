"""What is seen of a run: on a terminal one line that moves with every step and fits every width, else dated lines.

The line is made of pieces in a fixed order; where it is too narrow for all of them the less important ones go first,
and the step and the time left never.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.live import Live

from sanakit.base.echo import printable_lines
from sanakit.cli.fitted import FittedLine, span
from sanakit.cli.say import say

if TYPE_CHECKING:
    from sanakit.training import Event

_TRAINING = "training"
_IMPORTANT = ("count", "left", "loss", "bar", "speed", "lr", "label", "images", "mfu", "norm")
"""In this order; what is not named (parts of a loss) comes last."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """How far something is, and the newest figures, by name, as they are shown."""

    label: str = _TRAINING
    done: int = 0
    total: int = 0
    remaining: float | None = None
    figures: tuple[tuple[str, str], ...] = ()


def line(seen: Seen) -> FittedLine:
    """What is seen as a line."""
    label = {} if seen.label == _TRAINING else {"label": seen.label}
    texts = {
        **label, "bar": "", "count": f"{seen.done}/{seen.total}", "left": f"left {span(seen.remaining)}",
        **dict(() if label else seen.figures),
    }  # fmt: skip
    return FittedLine(texts=texts, important=_IMPORTANT, share=seen.done / max(1, seen.total))


class Display(Protocol):
    """Sees every event of a run."""

    def see(self, event: Event) -> None:
        """One event has come."""


class Silent:
    """Shows nothing."""

    def see(self, event: Event) -> None:
        """Does nothing."""


class Lines:
    """A line per report and per sentence on stdout with the time of day, for pipes and logs."""

    def see(self, event: Event) -> None:
        """One event has come."""
        from sanakit.training import Progress

        if not isinstance(event, Progress):
            say(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {event}")


class Bar:
    """The line at the foot of a terminal; sentences scroll above it."""

    def __init__(self, console: Console, done: int, total: int) -> None:
        self.console = console
        self.seen = Seen(done=done, total=total)

    def see(self, event: Event) -> None:
        """One event has come."""
        from sanakit.training import Progress, Report

        if isinstance(event, Progress):
            self.seen = replace(
                self.seen, label=event.label, done=event.done, total=event.total, remaining=event.remaining
            )
        elif isinstance(event, Report):
            self.seen = replace(self.seen, figures=tuple(event.figures.items()))
        else:
            self.console.print(printable_lines(event), highlight=False, markup=False)

    def end(self) -> None:
        """Nothing is left of a run that is through, its last looks and its export included."""
        if self.seen.done >= self.seen.total:
            self.seen = replace(self.seen, remaining=0.0)

    def __rich__(self) -> FittedLine:
        return line(self.seen)


@contextmanager
def open_display(begins: int, steps: int, silent: bool) -> Iterator[Display]:
    """A bar where stderr is a terminal, lines where it is none, nothing where `silent`."""
    console = Console(stderr=True)
    if silent or not console.is_terminal:
        yield Silent() if silent else Lines()
        return
    bar = Bar(console, begins, steps)
    with Live(bar, console=console, refresh_per_second=4):
        yield bar
        bar.end()
