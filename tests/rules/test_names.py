"""Public names: every package lists its own, every listed name exists, the root stays light."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys

import pytest

from tests.rules.source import Source, package_sources

SOURCES = [source for source in package_sources() if not source.module.endswith("__main__")]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.module)
def test_every_listed_name_exists(source: Source) -> None:
    module = importlib.import_module(source.module)
    names = getattr(module, "__all__", ())
    absent = [name for name in names if not hasattr(module, name)]
    assert not absent, f"{source.where} lists {absent} and has none of them"
    assert len(names) == len(set(names)), f"{source.where} lists a name twice"


def test_every_package_lists_its_names() -> None:
    silent = [s.where for s in SOURCES if s.is_package and not _assigns_all(s.tree)]
    assert not silent, f"packages without __all__: {silent}"


def _assigns_all(tree: ast.Module) -> bool:
    targets = [t for node in tree.body if isinstance(node, ast.Assign) for t in node.targets]
    return any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets)


def test_importing_the_root_loads_no_torch() -> None:
    code = "import sys, sanakit; print(sanakit.__version__, 'torch' in sys.modules, 'load' in dir(sanakit))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split()[1:] == ["False", "True"]


def test_the_root_knows_no_other_names() -> None:
    sanakit = importlib.import_module("sanakit")
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        _ = sanakit.absent
