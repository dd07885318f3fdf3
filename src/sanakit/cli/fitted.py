"""A line of a terminal that fits every width: pieces in a fixed order, of which the less important ones go first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.progress import ProgressColumn, Task
from rich.text import Text

__all__ = ["FittedLine", "TaskLine", "fit", "span"]

_BAR = (6, 40)  # cells, at least and at most
_TASK = ("count", "left", "label", "bar", "elapsed")


@dataclass(frozen=True, kw_only=True)
class FittedLine:
    """Renders as one line of the width that there is.

    texts: name -> text, in the order of the line; "bar" stands for the bar. important: names, first things first; what
    is not named comes last. share: done, 0 to 1.
    """

    texts: Mapping[str, str]
    important: Sequence[str]
    share: float

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        text = fit(self.texts, self.important, self.share, options.max_width, options.ascii_only)
        yield Text(text, no_wrap=True, overflow="crop")

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(1, options.max_width)


class TaskLine(ProgressColumn):
    """A whole task of `rich.progress` as one column: label, bar, count, time gone and left.

    left: of the task's field "left" where it has one, else of the pace that rich has seen.
    """

    def render(self, task: Task) -> FittedLine:
        """The line as it is now."""
        total = "?" if task.total is None else f"{task.total:.0f}"
        left = task.fields.get("left") or span(task.time_remaining)
        texts = {
            "label": f"{task.description:<19}", "bar": "", "count": f"{task.completed:.0f}/{total}",
            "elapsed": span(task.elapsed), "left": f"left {left}",
        }  # fmt: skip
        return FittedLine(
            texts=texts, important=_TASK, share=task.completed / task.total if task.total else 0.0
        )


def fit(
    texts: Mapping[str, str], important: Sequence[str], share: float, width: int, plain: bool = False
) -> str:
    """One line of at most `width` cells. Arguments as of `FittedLine`. plain: in ASCII."""
    ranks = {name: rank for rank, name in enumerate(important)}
    sizes = {name: _BAR[0] if name == "bar" else len(text) for name, text in texts.items()}
    shown: set[str] = set()
    for name in sorted(texts, key=lambda name: ranks.get(name, len(ranks))):
        if sum(sizes[each] + 1 for each in {*shown, name}) <= width + 1:
            shown.add(name)
    rest = sum(sizes[name] + 1 for name in shown - {"bar"})
    bar = _bar(share, min(_BAR[1], max(_BAR[0], width - rest)), plain)
    return " ".join(bar if name == "bar" else text for name, text in texts.items() if name in shown)[:width]


def span(seconds: float | None) -> str:
    """`1:02:03`, or `?` where nothing is known."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _bar(share: float, cells: int, plain: bool) -> str:
    full = round(cells * min(1.0, max(0.0, share)))
    done, left = ("#", "-") if plain else ("━", "╌")
    return done * full + left * (cells - full)
