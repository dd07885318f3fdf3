"""The tables of options in docs/cli.md are made from the commands: `python -m tests.cli.test_docs` writes them."""

from __future__ import annotations

import re
from pathlib import Path

import typer.main

from sanakit.cli import app
from sanakit.flow import SOLVERS
from sanakit.pipeline.request import request_fields

PAGE = Path(__file__).parents[2] / "docs/cli.md"
TABLE = re.compile(r"(<!-- options of ([a-z ]+) -->\n).*?(<!-- end -->\n)", re.DOTALL)


def options_table(command: str) -> str:
    """The arguments and options of a command with their help and default."""
    group = typer.main.get_command(app)
    for name in command.split():
        group = group.commands[name]  # type: ignore[attr-defined]
    rows = [_row(one) for one in group.params if one.name != "help"]
    return "".join(["| option | meaning | default |\n|---|---|---|\n", *rows])


def _row(parameter) -> str:
    """One row; a value that is a flag of its own has no metavar."""
    if parameter.param_type_name == "argument":
        names, metavar = [f"`{(parameter.metavar or parameter.name).upper()}`"], ""
    else:
        names = [f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts)]
        metavar = "" if parameter.is_flag else parameter.metavar or parameter.name.upper()
    if metavar:
        names[0] = f"{names[0][:-1]} {metavar}`"
    cells = (", ".join(names), parameter.help, _default(parameter))
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |\n"


def _default(parameter) -> str:
    shown = parameter.show_default
    if isinstance(shown, str):
        return shown
    return "" if shown is False or parameter.default in (None, False) else str(parameter.default)


def with_tables(text: str) -> str:
    """The page with every table made anew."""
    return TABLE.sub(lambda found: f"{found[1]}{options_table(found[2])}{found[3]}", text)


def test_the_tables_of_options_are_those_of_the_commands():
    text = PAGE.read_text(encoding="utf-8")
    assert TABLE.search(text)
    assert with_tables(text) == text, "run python -m tests.cli.test_docs"


def test_the_help_of_a_request_names_every_solver():
    (solver,) = (entry for entry in request_fields() if entry.name == "solver")
    assert all(name in solver.help for name in SOLVERS)


def test_help_is_a_phrase():
    """It begins with a capital or a name and ends with a period."""
    for command in _commands(typer.main.get_command(app)):
        for parameter in command.params:
            text = parameter.help
            assert text and text.endswith("."), f"{command.name} {parameter.name}: {text}"


def _commands(group):
    for command in getattr(group, "commands", {}).values():
        yield from _commands(command) if hasattr(command, "commands") else [command]


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
