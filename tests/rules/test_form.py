"""The form of the code: docstrings first, short files, short functions, no stray output."""

from __future__ import annotations

import ast
import re
from statistics import median

import pytest

from tests.rules.source import ROOT, Source, package_sources, sources_beside

LONGEST_FILE = 400
LONGEST_FUNCTION = 60


def is_kernel(source: Source) -> bool:
    """Triton kernels are long by nature."""
    return source.path.name.startswith("triton")


def body_length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from `def` to the end, the docstring left out."""
    first = function.body[0]
    doc = first.end_lineno - first.lineno + 1 if ast.get_docstring(function) and first.end_lineno else 0
    return (function.end_lineno or function.lineno) - function.lineno + 1 - doc


def test_every_file_begins_with_what_it_is() -> None:
    everything = (*package_sources(), *sources_beside())
    silent = [s.where for s in everything if s.text.strip() and not ast.get_docstring(s.tree)]
    assert not silent, f"no docstring at the top of {silent}"
    empty = [s.where for s in package_sources() if not s.text.strip()]
    assert not empty, f"empty files: {empty}"


def test_files_are_short(capsys: pytest.CaptureFixture[str]) -> None:
    lengths = {source: len(source.text.splitlines()) for source in package_sources()}
    with capsys.disabled():
        print(
            f"[{len(lengths)} files, median {median(lengths.values()):.0f} lines, max {max(lengths.values())}] ",
            end="",
        )
    long = [f"{s.where}: {n} lines" for s, n in lengths.items() if n > LONGEST_FILE and not is_kernel(s)]
    assert not long, f"split what is past {LONGEST_FILE} lines: {long}"


def test_functions_are_short() -> None:
    long = [
        f"{source.where}:{function.lineno} {function.name}: {body_length(function)} lines"
        for source in package_sources()
        if not is_kernel(source)
        for function in source.functions()
        if body_length(function) > LONGEST_FUNCTION
    ]
    assert not long, f"split what is past {LONGEST_FUNCTION} lines: {long}"


def test_only_the_command_line_prints() -> None:
    found = [
        f"{source.where}:{node.lineno}"
        for source in package_sources()
        if source.room != "cli"
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not found, f"print outside the command line: {found}"


def test_the_command_line_prints_in_one_place() -> None:
    """`say` cleans what is printed and survives any encoding and a closed pipe; nothing may go past it."""
    found = [
        f"{source.where}:{node.lineno}"
        for source in package_sources()
        if source.room == "cli" and source.path.name != "say.py"
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "typer.echo", "typer.secho")
    ]
    assert not found, f"print with sanakit.cli.say.say: {found}"


def test_json_is_parsed_in_one_place() -> None:
    found = [s.where for s in package_sources() if re.search(r"json\.loads?\(", s.text)]
    assert found == ["src/sanakit/base/json_text.py"], (
        "use base.json_text: nesting too deep is a ValueError there"
    )


def test_nothing_is_left_to_do() -> None:
    words = ("TODO", "FIXME", "XXX")
    found = [s.where for s in package_sources() if any(word in s.text for word in words)]
    assert not found, f"unfinished: {found}"


def test_versions_are_pinned_in_one_place() -> None:
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    assert all(line.count("==") == 1 for line in pins)
    assert "torch==2.13.0" in pins
