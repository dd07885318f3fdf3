"""No import cycles, and no private names across packages."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter

from tests.rules.source import PACKAGE, Import, Source, package_sources, room_of, sources_beside


def target_of(wanted: Import, known: set[str]) -> str | None:
    """The module of ours that an import runs, None for a library."""
    whole = f"{wanted.module}.{wanted.name}"
    if whole in known:
        return whole
    return wanted.module if wanted.module in known else None


def test_no_import_cycles() -> None:
    known = {source.module for source in package_sources()}
    graph = {
        source.module: {target_of(wanted, known) for wanted in source.imports} - {None, source.module}
        for source in package_sources()
        if source.module != PACKAGE
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError("import cycle: " + " -> ".join(error.args[1])) from None


def private_part(wanted: Import) -> str | None:
    """The first private part of an imported name of ours ("_rows"), None when all of it is public."""
    parts = [*wanted.module.split("."), *([wanted.name] if wanted.name else [])]
    return next((p for p in parts if p.startswith("_") and not p.endswith("__")), None)


def private_imports(source: Source, room: str | None) -> list[str]:
    """Private names of ours that a file of `room` takes from another room."""
    return [
        f"{source.where}:{wanted.line}: {private_part(wanted)} is private to {wanted.module}"
        for wanted in source.imports
        if wanted.top == PACKAGE and private_part(wanted) and room_of(wanted.module) != room
    ]


def test_no_private_names_across_packages() -> None:
    found = [fault for source in package_sources() for fault in private_imports(source, source.room)]
    assert not found, "\n".join(found)


def test_what_stands_beside_uses_public_names() -> None:
    """Recipes, benches and examples show how the package is used; tests may look inside."""
    users = [source for source in sources_beside() if not source.module.startswith("tests.")]
    found = [fault for source in users for fault in private_imports(source, None)]
    assert not found, "\n".join(found)
