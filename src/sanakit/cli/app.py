"""`sanakit`: the list of commands. Each command is a file beside this one and imports torch only when it runs."""

from __future__ import annotations

import atexit
import gc
from typing import Annotated

import typer

from sanakit import __version__
from sanakit.base.waiting import spin_briefly
from sanakit.cli.annotate import annotate
from sanakit.cli.batch import batch
from sanakit.cli.bench import bench
from sanakit.cli.convert import convert
from sanakit.cli.data import data_app
from sanakit.cli.doctor import doctor
from sanakit.cli.edit import edit
from sanakit.cli.errors import guarded
from sanakit.cli.evaluate import evaluate_app
from sanakit.cli.generate import generate
from sanakit.cli.grow import grow
from sanakit.cli.importance import importance
from sanakit.cli.inspect import inspect
from sanakit.cli.keys import keys_app
from sanakit.cli.prune import prune
from sanakit.cli.say import prepare_streams, say
from sanakit.cli.serve import serve
from sanakit.cli.train import train

app = typer.Typer(
    name="sanakit",
    help="Draw pictures from text with models of the SANA family.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        say(f"sanakit {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Draw pictures from text with models of the SANA family."""


def version() -> None:
    """Print the version."""
    say(f"sanakit {__version__}")


_COMMANDS = (
    generate, edit, batch, serve, annotate, inspect, convert, grow, importance, prune, train, bench, doctor,
    version,
)  # fmt: skip
for _command in _COMMANDS:
    app.command()(guarded(_command))
app.add_typer(evaluate_app)
app.add_typer(data_app)
app.add_typer(keys_app)


def main() -> None:
    """Run the command line: the console script."""
    spin_briefly()  # before any command imports torch
    prepare_streams()
    _spare_the_collector()
    app(prog_name="sanakit")


def _spare_the_collector() -> None:
    """Save about a second of a cold start.

    Importing torch and transformers makes a million objects that stay: looking through them for garbage again and
    again while they come, and once more at the end, finds nothing.
    """
    gc.set_threshold(100_000, 20, 20)
    atexit.register(gc.freeze)
