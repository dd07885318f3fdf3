"""The source tree as the rules see it: files, their imports and their functions, by AST only."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = "sanakit"
BESIDE = ("recipes", "tests", "bench", "examples")


@dataclass(frozen=True)
class Import:
    """One imported name: `from module import name`, or `import module` with name None."""

    module: str
    name: str | None
    line: int

    @property
    def top(self) -> str:
        """The distribution-level name, "torch" of "torch.nn"."""
        return self.module.partition(".")[0]


@dataclass(frozen=True)
class Source:
    """One Python file. `module` is its dotted name; a package is named as itself, without __init__."""

    path: Path
    module: str

    @cached_property
    def text(self) -> str:
        """The file as it is."""
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        """The parsed file."""
        return ast.parse(self.text, str(self.path), feature_version=(3, 11))

    @property
    def where(self) -> str:
        """The path as a reader types it."""
        return str(self.path.relative_to(ROOT) if self.path.is_relative_to(ROOT) else self.path)

    @property
    def is_package(self) -> bool:
        """True for an __init__.py."""
        return self.path.name == "__init__.py"

    @property
    def room(self) -> str:
        """The package below sanakit ("flow"), "" for the root, "cli" for __main__."""
        parts = self.module.split(".")
        return (
            room_of(self.module) if len(parts) > 1 and parts[1] != "__main__" else ("", "cli")[len(parts) > 1]
        )

    @cached_property
    def imports(self) -> tuple[Import, ...]:
        """Every import of the file, those inside functions and TYPE_CHECKING too."""
        return tuple(_imports(self))

    def functions(self) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        """Every function and method, nested ones too."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node


def room_of(module: str) -> str:
    """The package below sanakit that a dotted name belongs to, "" when it is none."""
    parts = module.split(".")
    return parts[1] if parts[0] == PACKAGE and len(parts) > 1 else ""


def _imports(source: Source) -> Iterator[Import]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, None, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(source, node)
            for alias in node.names:
                yield Import(base, alias.name, node.lineno)


def _absolute(source: Source, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = source.module.split(".")
    kept = parts[: len(parts) - node.level + source.is_package]
    return ".".join([*kept, *([node.module] if node.module else [])])


@cache
def package_sources() -> tuple[Source, ...]:
    """Every file of src/sanakit."""
    return sources_of(ROOT)


def sources_of(root: Path) -> tuple[Source, ...]:
    """Every file of src/sanakit of a checkout."""
    base = root / "src"
    found = []
    for path in sorted((base / PACKAGE).rglob("*.py")):
        parts = list(path.relative_to(base).with_suffix("").parts)
        found.append(Source(path, ".".join(parts[:-1] if parts[-1] == "__init__" else parts)))
    return tuple(found)


@cache
def sources_beside() -> tuple[Source, ...]:
    """Every Python file of the folders beside the package."""
    paths = (path for folder in BESIDE for path in sorted((ROOT / folder).rglob("*.py")))
    return tuple(Source(path, ".".join(path.relative_to(ROOT).with_suffix("").parts)) for path in paths)
