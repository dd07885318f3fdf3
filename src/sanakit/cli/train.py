"""`sanakit train`: a recipe or a YAML file to a trained model; interrupted and resumed without loss."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sanakit.cli import options as o
from sanakit.cli.say import say

if TYPE_CHECKING:
    from sanakit.training.config import TrainConfig

_StrictOption = Annotated[
    bool, typer.Option("--strict", help="End before the first step where the plan warns of something.")
]
_KeysOption = Annotated[
    bool, typer.Option("--keys", help="Print every key of a config with its default and meaning, and end.")
]
_NewOption = Annotated[
    Path | None,
    typer.Option(
        "--new",
        metavar="FOLDER",
        help="Write a commented config for a set of pictures, to CONFIG.",
        show_default="FOLDER.yaml",
    ),
]
_ExportOption = Annotated[
    int | None,
    typer.Option(
        "--export-step",
        metavar="STEP",
        help="Train nothing: write the model of this checkpoint to RUN/model-STEP.",
        show_default=False,
    ),
]


def train(
    config: Annotated[
        Path | None,
        typer.Argument(metavar="CONFIG", help="A YAML file, or a recipe with config().", show_default=False),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a value; repeat.", show_default=False),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint.")] = False,
    plan: Annotated[bool, typer.Option("--plan", "--dry-run", help="Print the plan and end.")] = False,
    strict: _StrictOption = False,
    keys: _KeysOption = False,
    new: _NewOption = None,
    export_step: _ExportOption = None,
    device: o.DeviceOption = None,
    threads: o.ThreadsOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No bar and no lines.")] = False,
    debug: o.DebugOption = False,
) -> None:
    """Train a model as CONFIG says. Ctrl-C saves and ends; the same command with --resume goes on.

    Several processes: torchrun --nproc-per-node N -m sanakit.cli train CONFIG
    """
    if keys:
        return _print_keys()
    if new is not None:
        return _write_new(new, config)
    from sanakit.base.errors import ConfigError, RequestError
    from sanakit.cli.train_display import open_display
    from sanakit.data.image import ignore_warnings
    from sanakit.training.schema import read_config
    from sanakit.training.session import Session

    if config is None:
        raise RequestError("name a CONFIG: a YAML file, or a recipe with config(); --new FOLDER writes one")
    ignore_warnings()
    settings = read_config(config, sets or ())
    if export_step is not None:
        return _export(settings, export_step, resume or plan)
    session = Session(settings, device=device, resume=resume, threads=threads, told=_tell)
    if session.world.leads:
        say("\n".join(session.plan.lines()), err=True)
    if strict and session.plan.warnings:
        raise ConfigError(f"--strict: {'; '.join(session.plan.warnings)}")
    if plan:
        return
    try:
        silent = quiet or not session.world.leads
        bar = open_display(session.begins, session.config.steps, silent)
        with bar as display, closing(session.events()) as events:
            for event in events:  # where the display fails, as that of a closed terminal, the run is saved
                display.see(event)
    except KeyboardInterrupt:
        if session.world.leads:
            say("stopped and saved; the same command with --resume goes on from there", err=True)
        raise typer.Exit(130) from None


def _print_keys() -> None:
    from shutil import get_terminal_size

    from sanakit.training.keys import lines

    for line in lines(get_terminal_size((100, 24)).columns):
        say(line)


def _export(config: TrainConfig, step: int, others: bool) -> None:
    from sanakit.base.errors import RequestError
    from sanakit.training.exporting import export_step

    if others:
        raise RequestError("--export-step trains nothing: leave out --resume and --plan.")
    say(str(export_step(config, step, _tell)))


def _write_new(pictures: Path, file: Path | None) -> None:
    """A config for a set, and what to do next; a file that is there stays."""
    from shlex import quote

    import torch

    from sanakit.data import open_set
    from sanakit.training.starter import free_run, starter, write_starter

    found = open_set(pictures)
    name = pictures.expanduser().absolute().name.partition(".")[0] or "run"
    path = file or Path(f"{name}.yaml")
    write_starter(path, starter(found, str(path), free_run(name), torch.cuda.is_available()))
    say(f"{path} is written for {len(found)} pictures: look through it, then")
    say(f"  sanakit train {quote(str(path))} --plan")


def _tell(text: str) -> None:
    say(text, err=True)
