"""`sanakit evaluate COMMAND`: how good a model's pictures are, one file per command."""

from __future__ import annotations

import typer

from sanakit.cli.errors import guarded
from sanakit.cli.evaluate.compare import compare
from sanakit.cli.evaluate.pictures import pictures
from sanakit.cli.evaluate.suite import suite
from sanakit.cli.evaluate.toybox import toybox

__all__ = ["evaluate_app"]

evaluate_app = typer.Typer(
    name="evaluate", help="How well pictures show their prompts.", no_args_is_help=True
)
for _command in (toybox, suite, compare, pictures):
    evaluate_app.command()(guarded(_command))
