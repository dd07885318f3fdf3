"""Commands run in this process, and a small model for them."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from typer.testing import CliRunner

from sanakit.cli import app
from tests.oracles.tiny import Folders


class Sana:
    """`sana(...)` runs `sanakit ...`; `draw(...)` adds the tiny model and small sizes."""

    def __init__(self, tiny: Folders) -> None:
        self.model = str(tiny())
        self.runner = CliRunner()

    def __call__(self, *arguments: object, text: str | None = None):
        return self.runner.invoke(app, [str(argument) for argument in arguments], input=text)

    def draw(self, *arguments: object, text: str | None = None):
        fixed = ("--model", self.model, "--device", "cpu", "--dtype", "fp32", "--steps", 2, "--size", "64x64")
        return self("generate", *fixed, *arguments, text=text)


def lines_of(result) -> list[dict]:
    """The JSON lines of a command; it must have ended well."""
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def pictures_in(folder: Path) -> list[str]:
    """Everything in a folder, hidden files too."""
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def hear_interrupts() -> None:
    """For `preexec_fn`: tests in the background of a shell ignore Ctrl-C, and their children would inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
