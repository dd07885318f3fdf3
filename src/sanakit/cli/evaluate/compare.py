"""`sanakit evaluate compare A B`: two reports of the same suite side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sanakit.cli import options as o
from sanakit.cli.say import say

_FirstArgument = Annotated[
    Path, typer.Argument(help="A report.json of sanakit evaluate suite.", show_default=False)
]
_SecondArgument = Annotated[Path, typer.Argument(help="Another of the same suite.", show_default=False)]


def compare(first: _FirstArgument, second: _SecondArgument, debug: o.DebugOption = False) -> None:
    """Compare two models on a suite, prompt by prompt; a difference is clear if its 95 % interval leaves out zero."""
    from sanakit.evaluation.suite_report import compare as compare_reports

    for one in compare_reports(first, second):
        verdict = "clear" if one.is_clear else "not clear"
        say(
            f"{one.judge}: {one.first:.2f} and {one.second:.2f}, difference {one.difference} prompts: {verdict}"
        )
