"""`sanakit train`: a recipe or a YAML file to a trained model; interrupted and resumed without loss."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from sanakit.base.echo import printable_lines
from sanakit.cli import options as o
from sanakit.cli.say import say

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from sanakit.training import Event
    from sanakit.training.session import Session


def train(
    config: Annotated[
        Path,
        typer.Argument(metavar="CONFIG", help="A YAML file, or a recipe with config().", show_default=False),
    ],
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a value; repeat.", show_default=False),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint.")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Print the plan and end.")] = False,
    device: o.DeviceOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No bar and no lines.")] = False,
    debug: o.DebugOption = False,
) -> None:
    """Train a model as CONFIG says. Ctrl-C saves and ends; the same command with --resume goes on.

    Several processes: torchrun --nproc-per-node N -m sanakit.cli train CONFIG
    """
    from sanakit.training.schema import read_config
    from sanakit.training.session import Session

    session = Session(read_config(config, sets or ()), device=device, resume=resume, told=_tell)
    if session.world.leads:
        say("\n".join(session.plan.lines()), err=True)
    if plan:
        return
    try:
        with _open_display(session, quiet) as display:
            for event in session.events():
                display.see(event)
    except KeyboardInterrupt:
        if session.world.leads:
            say("stopped and saved; the same command with --resume goes on from there", err=True)
        raise typer.Exit(130) from None


class _Display(Protocol):
    def see(self, event: Event) -> None: ...


class _Lines:
    """A line per event on stdout, for pipes and logs; nothing at all where `silent`."""

    def __init__(self, silent: bool) -> None:
        self.silent = silent

    def see(self, event: Event) -> None:
        """One event has come."""
        if not self.silent:
            say(str(event))


class _Bar:
    """A bar with an estimate of the time left and the newest figures; sentences scroll above it."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self.progress, self.task = progress, task

    def see(self, event: Event) -> None:
        """One event has come."""
        from sanakit.training import Report

        if isinstance(event, Report):
            self.progress.update(self.task, completed=event.step, total=event.steps, told=event.figures)
        else:
            self.progress.console.print(printable_lines(event), highlight=False, markup=False)


@contextmanager
def _open_display(session: Session, quiet: bool) -> Iterator[_Display]:
    from rich.console import Console

    console = Console(stderr=True)
    if quiet or not session.world.leads or not console.is_terminal:
        yield _Lines(quiet or not session.world.leads)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(20), MofNCompleteColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[told]}"), console=console) as progress:
        task = progress.add_task("", total=session.config.steps, completed=session.begins, told="")
        yield _Bar(progress, task)


def _tell(text: str) -> None:
    say(text, err=True)
