"""The form of error messages: one sentence that begins in lower case and has no final period, which the CLI adds."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator

import pytest

from sanakit.base import errors
from tests.rules.source import Source, package_sources

OURS = {name for name, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)}


def messages(tree: ast.AST) -> Iterator[ast.expr]:
    """The first argument of every error of ours that is made."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in OURS
            and node.args
        ):
            yield node.args[0]


def edge(message: ast.expr, last: bool) -> str:
    """The literal text that a message begins or ends with; "" if that is a value."""
    index = -1 if last else 0
    if isinstance(message, ast.BinOp):
        return edge(message.right if last else message.left, last)
    if isinstance(message, ast.JoinedStr):
        return edge(message.values[index], last)
    return message.value if isinstance(message, ast.Constant) and isinstance(message.value, str) else ""


def faults(message: ast.expr) -> Iterator[str]:
    begin, end = edge(message, last=False), edge(message, last=True)
    if begin[:1].isupper() and begin[1:2].islower():
        yield f"begins with a capital: {begin[:40]!r}"
    if end.endswith("."):
        yield f"ends with a period: {end[-40:]!r}"


def found(source: Source) -> list[str]:
    return [
        f"{source.where}:{message.lineno} {fault}"
        for message in messages(source.tree)
        for fault in faults(message)
    ]


def test_messages_of_errors_have_one_form() -> None:
    wrong = [fault for source in package_sources() for fault in found(source)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("code", "count"),
    [('DataError("no")', 0), ('DataError("No")', 1), ('DataError(f"a {b}.")', 1), ('DataError(f"{a} b" + "C d.")', 1),
     ('ValueError("Anything.")', 0), ('DataError(f"{a}")', 0), ('ConfigError("FSDP2 needs it")', 0)],
)  # fmt: skip
def test_the_rule_sees_capitals_and_periods(code: str, count: int) -> None:
    assert sum(len(list(faults(message))) for message in messages(ast.parse(code))) == count
