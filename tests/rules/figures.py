"""The house in numbers: `python -m tests.rules.figures [FOLDER]` prints one line per figure.

FOLDER: another checkout, to be counted by the same rules; this one if none is given.
"""

from __future__ import annotations

import argparse
import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from statistics import median

from tests.rules.source import ROOT, Source, sources_of

SHORT = 40
"""Lines below which a file is short: it should hold values or exports only."""


def lines_of(source: Source) -> int:
    """Lines of a file."""
    return len(source.text.splitlines())


def is_exports(source: Source) -> bool:
    """Whether a file only lists names or starts a command."""
    return source.path.name in ("__init__.py", "__main__.py")


def import_lines(source: Source) -> int:
    """Lines that imports and `__all__` take at the top of a file."""
    return sum((node.end_lineno or node.lineno) - node.lineno + 1 for node in _header(source.tree))


def _header(tree: ast.Module) -> Iterator[ast.stmt]:
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom) or _is_all(node):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from node.body


def _is_all(node: ast.stmt) -> bool:
    """Whether a statement sets `__all__`."""
    return isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"


def shared_names(sources: tuple[Source, ...]) -> dict[str, list[str]]:
    """Public classes that are defined in more than one module -> those modules."""
    homes: dict[str, list[str]] = defaultdict(list)
    for source in sources:
        for node in source.tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(source.module)
    return {name: modules for name, modules in sorted(homes.items()) if len(modules) > 1}


def meetings(sources: tuple[Source, ...], shared: dict[str, list[str]]) -> list[str]:
    """Names of `shared` that one module imports from two homes."""
    found = []
    for source, name in ((source, name) for source in sources for name in shared):
        froms = {wanted.module for wanted in source.imports if wanted.name == name}
        own = source.module in shared[name] and froms - {source.module}
        if len(froms) > 1 or own:
            found.append(f"{name} in {source.where}")
    return found


def twin_files(sources: tuple[Source, ...]) -> list[str]:
    """File names that stand twice within one package, in neighbouring folders."""
    names: dict[tuple[str, str], set[str]] = defaultdict(set)
    for source in sources:
        if (
            not is_exports(source) and source.room != "kernels"
        ):  # there each operator has a reference and its rows
            names[source.room, source.path.name].add(str(source.path.parent))
    return sorted(f"{room}: {name}" for (room, name), folders in names.items() if len(folders) > 1)


def cycles(sources: tuple[Source, ...]) -> list[str]:
    """Pairs of packages that import each other."""
    edges = {
        (s.room, wanted.module.split(".")[1]) for s in sources for wanted in s.imports if _ours(wanted.module)
    }
    rooms = sorted({room for edge in edges for room in edge} - {""})
    return [f"{a} and {b}" for a, b in combinations(rooms, 2) if (a, b) in edges and (b, a) in edges]


def _ours(module: str) -> bool:
    return module.startswith("sanakit.")


def ignores(sources: tuple[Source, ...]) -> Counter[str]:
    """Kind of `type: ignore` -> how many there are."""
    return Counter(kind for s in sources for kind in re.findall(r"# type: ignore\[([^\]]+)\]", s.text))


def figures(root: Path) -> list[tuple[str, str]]:
    """Every figure as (what it counts, value)."""
    sources = sources_of(root)
    lengths = [lines_of(source) for source in sources]
    short = [s for s in sources if lines_of(s) < SHORT and not is_exports(s)]
    header = sum(import_lines(source) for source in sources)
    shared, kinds = shared_names(sources), ignores(sources)
    return [
        ("files in src/", str(len(sources))),
        ("lines in src/", f"{sum(lengths):,}"),
        ("median lines of a file", f"{median(lengths):g}"),
        ("the same without __init__ files", f"{median(lines_of(s) for s in sources if not is_exports(s)):g}"),
        (f"files below {SHORT} lines that are not exports", str(len(short))),
        ("share of lines that are imports and __all__", f"{100 * header / sum(lengths):.1f} %"),
        ("public classes that share a name", str(len(shared))),
        ("of these, meeting in one module", str(len(meetings(sources, shared)))),
        ("file names that stand twice in a room", str(len(twin_files(sources)))),
        ("packages that import each other", str(len(cycles(sources)))),
        (
            "type: ignore",
            f"{sum(kinds.values())} ({', '.join(f'{n} {kind}' for kind, n in kinds.most_common())})",
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.rules.figures", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT)
    parser.add_argument("--list", action="store_true", help="name what was counted, too")
    given = parser.parse_args()
    for name, value in figures(given.folder):
        print(f"{name:<50}{value}")
    if given.list:
        _print_lists(sources_of(given.folder))


def _print_lists(sources: tuple[Source, ...]) -> None:
    """Name what the figures count."""
    for source in sources:
        if lines_of(source) < SHORT and not is_exports(source):
            print(f"{source.where}: {lines_of(source)} lines")
    shared = shared_names(sources)
    for name, homes in shared.items():
        print(f"{name}: {', '.join(homes)}")
    print(*meetings(sources, shared), *twin_files(sources), sep="\n")


if __name__ == "__main__":
    main()
