"""`sanakit train`: a recipe or a YAML file to a trained model; interrupted and resumed without loss."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sanakit.cli import options as o
from sanakit.cli.say import notify, say

if TYPE_CHECKING:
    from sanakit.cli.progress import ProgressBar
    from sanakit.training import Event, Progress
    from sanakit.training.config import TrainConfig

_StrictOption = Annotated[
    bool, typer.Option("--strict", help="End before the first step if the plan warns of something.")
]
_KeysOption = Annotated[
    bool, typer.Option("--keys", help="Print every key of a config with its default and meaning, then end.")
]
_NewOption = Annotated[
    Path | None,
    typer.Option(
        "--new",
        metavar="FOLDER",
        help="Write a commented config for this set of pictures to CONFIG, then end.",
        show_default="FOLDER.yaml",
    ),
]
_TaskOption = Annotated[
    str | None,
    typer.Option(
        "--task",
        metavar="TASK",
        help="With --new: the task of the config, transformer, lora or control.",
        show_default="transformer",
    ),
]
_ExportOption = Annotated[
    int | None,
    typer.Option(
        "--export-step",
        metavar="STEP",
        help="Write the model of this checkpoint to RUN/model-STEP (a LoRA to RUN/lora-STEP), without training.",
        show_default=False,
    ),
]

_ConfigArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="CONFIG",
        help="A YAML file, or a recipe: a Python file with config().",
        show_default=False,
    ),
]
_SetsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a value of the config; give it again for more.",
        show_default=False,
    ),
]


def train(
    config: _ConfigArgument = None,
    sets: _SetsOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the newest checkpoint.")] = False,
    plan: Annotated[bool, typer.Option("--plan", "--dry-run", help="Print the plan, then end.")] = False,
    strict: _StrictOption = False,
    keys: _KeysOption = False,
    new: _NewOption = None,
    task: _TaskOption = None,
    export_step: _ExportOption = None,
    device: o.DeviceOption = None,
    threads: o.ThreadsOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show neither a bar nor lines.")] = False,
    debug: o.DebugOption = False,
) -> None:
    """Train a model as CONFIG says. Ctrl-C saves and ends; the same command with --resume continues.

    Several processes: torchrun --nproc-per-node N -m sanakit.cli train CONFIG
    """
    if keys:
        return _print_keys()
    if new is not None:
        return _write_new(new, config, task or "transformer")
    from sanakit.base.errors import ConfigError, RequestError
    from sanakit.cli.progress import ProgressBar
    from sanakit.data.image import ignore_warnings
    from sanakit.training.schema import read_config
    from sanakit.training.session import Session

    if task is not None:
        raise RequestError("--task belongs to --new; in a config it is the key `task`: --set task=lora")
    if config is None:
        raise RequestError("name a CONFIG: a YAML file, or a recipe with config(); --new FOLDER writes one")
    ignore_warnings()
    settings = read_config(config, sets or ())
    if export_step is not None:
        return _export(settings, export_step, resume or plan)
    session = Session(settings, device=device, resume=resume, threads=threads, notify=notify)
    if session.world.leads:
        say("\n".join(session.plan.lines()), err=True)
    if strict and session.plan.warnings:
        raise ConfigError(f"--strict: {'; '.join(session.plan.warnings)}")
    if plan:
        return
    try:
        silent = quiet or not session.world.leads
        with (
            ProgressBar(quiet=silent, sentences=False, keep=True) as bar,
            closing(session.events()) as events,
        ):
            display = RunDisplay(bar, session.begins, session.config.steps, quiet=silent)
            for event in events:  # if the display fails, as that of a closed terminal, the run is saved
                display.see(event)
            display.finish()
    except KeyboardInterrupt:
        if session.world.leads:
            say("stopped and saved; the same command with --resume goes on from there", err=True)
        raise typer.Exit(130) from None


class RunDisplay:
    """Shows a run: on a terminal one line that moves with every step, below the messages; elsewhere dated lines."""

    def __init__(self, bar: ProgressBar, done: int, total: int, quiet: bool = False) -> None:
        self.bar = bar
        from sanakit.training import Progress

        self.dated = not (bar.shown or quiet)
        self.label = ""  # nothing but training
        self.figures: dict[str, str] = {}
        self.last = Progress(label="training", done=done, total=total)
        bar.update("", done, total)

    def see(self, event: Event) -> None:
        """Show an event."""
        from sanakit.training import Progress, StepReport

        if isinstance(event, Progress):
            self._move("" if event.label == "training" else event.label, event)
        elif self.dated:
            say(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {event}")
        elif isinstance(event, StepReport):
            self.figures = event.figures
        elif self.bar.shown:
            self.bar.print(event)

    def _move(self, label: str, event: Progress) -> None:
        """Show one task at a time; only training has figures."""
        if label != self.label:
            self.bar.remove(self.label)
            self.label = label
        self.bar.update(label, event.done, event.total, event.remaining, None if label else self.figures)
        self.last = event

    def finish(self) -> None:
        """Show no time left of a run that is through, its last previews and its export included."""
        if self.last.done >= self.last.total:
            self._move(self.label, replace(self.last, remaining=0.0))


def _print_keys() -> None:
    from shutil import get_terminal_size

    from sanakit.training.keys import lines

    for line in lines(get_terminal_size((100, 24)).columns):
        say(line)


def _export(config: TrainConfig, step: int, others: bool) -> None:
    from sanakit.base.errors import RequestError
    from sanakit.training.export import export_step

    if others:
        raise RequestError("--export-step trains nothing: leave out --resume and --plan")
    say(str(export_step(config, step, notify)))


def _write_new(pictures: Path, file: Path | None, task: str) -> None:
    """Write a config for a set, and say what to do next; an existing file stays."""
    from shlex import quote

    import torch

    from sanakit.base.errors import RequestError
    from sanakit.data import open_set
    from sanakit.training.control_starter import control_starter
    from sanakit.training.lora_starter import lora_starter
    from sanakit.training.starter import free_run, starter, write_starter

    makers = {"transformer": starter, "lora": lora_starter, "control": control_starter}
    if task not in makers:
        raise RequestError(f"--task {task}: --new writes configs of the tasks {', '.join(makers)}")
    found = open_set(pictures)
    name = pictures.expanduser().absolute().name.partition(".")[0] or "run"
    path = file or Path(f"{name}.yaml")
    write_starter(path, makers[task](found, str(path), free_run(name), torch.cuda.is_available()))
    say(f"{path} is written for {len(found)} pictures: look through it, then")
    say(f"  sanakit train {quote(str(path))} --plan")
