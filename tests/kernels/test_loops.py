"""What Triton's compiler makes of loops, which its interpreter does not show.

The compiler carries a name from one round to the next only if its value changed in a trial of the body. A name that
takes over another one's old value (`above = beside`) has not changed if both began as the same value: the compiled loop
then keeps that value for ever, while the interpreter, which is Python, goes on rightly.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import sanakit.kernels

FILES = sorted(Path(sanakit.kernels.__file__).parent.glob("*/triton.py"))


def jit_functions(source: str) -> Iterator[ast.FunctionDef]:
    """The functions that Triton compiles."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and any("jit" in ast.unparse(d) for d in node.decorator_list):
            yield node


def pairs(statement: ast.stmt) -> Iterator[tuple[str, ast.expr]]:
    """(name, what is assigned to it) of an assignment."""
    if not isinstance(statement, ast.Assign):
        return
    target, value = statement.targets[0], statement.value
    if isinstance(target, ast.Name):
        yield target.id, value
    elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        for each, part in zip(target.elts, value.elts, strict=True):
            if isinstance(each, ast.Name):
                yield each.id, part


def lost(function: ast.FunctionDef) -> list[str]:
    """Names that a loop of a function would not carry: they take over a value that began as their own."""
    origin: dict[str, str] = {}  # name -> what its value was made by
    found: list[str] = []
    for statement in function.body:
        if isinstance(statement, ast.For):
            found += _lost_in(statement, origin)
        for name, value in pairs(statement):
            made = f"line {statement.lineno}, {name}"
            origin[name] = origin.get(value.id, made) if isinstance(value, ast.Name) else made
    return found


def _lost_in(loop: ast.For, origin: dict[str, str]) -> list[str]:
    """Names with a value from before the loop that get another such name's, which the loop has not changed yet."""
    changed: set[str] = set()
    found = []
    for statement in loop.body:
        for name, value in pairs(statement):
            old = isinstance(value, ast.Name) and value.id not in changed and value.id in origin
            if old and name in origin and origin[value.id] == origin[name]:
                found.append(name)
        changed |= {node.id for node in ast.walk(statement)
                    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}  # fmt: skip
    return found


@pytest.mark.parametrize("path", FILES, ids=[path.parent.name for path in FILES])
def test_no_loop_of_a_kernel_loses_a_value(path: Path) -> None:
    for function in jit_functions(path.read_text(encoding="utf-8")):
        assert not lost(function), f"{path.parent.name}.{function.name}: begin these with values of their own"


def test_the_check_knows_a_lost_value() -> None:
    [function] = jit_functions(
        "@triton.jit\n"
        "def f(n):\n"
        "    none = tl.zeros((4,), tl.float32)\n"
        "    above, beside = none, none\n"
        "    for step in range(n):\n"
        "        below = load(step)\n"
        "        above, beside = beside, below\n"
    )
    assert lost(function) == ["above"]
