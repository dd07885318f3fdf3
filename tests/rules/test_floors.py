"""Imports go down: the floors of ARCHITECTURE.md, and which floor may use which library."""

from __future__ import annotations

import sys

import pytest

from tests.rules.source import PACKAGE, Import, Source, package_sources, room_of, sources_beside

FLOORS = (
    {"base"},
    {"kernels"},
    {"layers"},
    {"text", "flow", "transformer", "autoencoder"},
    {"weights", "adapt"},
    {"pipeline", "toybox"},
    {"data", "batch"},
    {"training", "evaluation", "benchmark"},
    {"server"},
    {"cli"},
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

ONLY_BASE = {"flow"}
"""Rooms that know no network: they import base and nothing else of ours."""

EVERYWHERE = {"torch", "numpy"}
PICTURE_FLOORS = {"pipeline", "toybox", "data", "batch", "training", "evaluation", "cli", "server"}
LIBRARIES = {
    "triton": {"kernels"},
    "transformers": {"text"},
    "tokenizers": {"text"},
    "safetensors": {"weights"},
    "huggingface_hub": {"weights"},
    "PIL": PICTURE_FLOORS,
    "pyarrow": {"data"},
    "open_clip": {"data"},
    "ray": {"data", "batch", "server"},
    "typer": {"cli"},
    "click": {"cli"},
    "rich": {"cli"},
    "diffusers": {"benchmark"},
    "openvino": {"benchmark"},
    "nncf": {"benchmark"},
    "matplotlib": {"benchmark", "evaluation"},
    "cryptography": {"pipeline"},
    "torchao": {"training"},
    "torchmetrics": {"training"},
    "fastapi": {"server"},
    "starlette": {"server"},
    "uvicorn": {"server"},
    "anyio": {"server"},
    "pydantic": {"server"},
    "limits": {"server"},
    "prometheus_client": {"server"},
    "opentelemetry": {"server"},
    "multipart": {"server"},
    "c2pa": {"pipeline"},
}
"""Library -> rooms that may import it; a library that is not named here is imported nowhere in src."""

SINGLE_FILES = {
    # Vision-language models and CLIP, which write and score captions of training data, and models for depth and pose:
    # they belong to no station of the flow, so `text` is no place for them.
    "transformers": {"sanakit.data.labels.vision", "sanakit.data.labels.dense"},
}
"""Library -> modules that may import it though their room may not."""

ROOT_NAMES = {"__version__"}
"""What a room may take from the package root, which is light and lazy."""


def test_every_package_has_a_floor() -> None:
    rooms = {source.room for source in package_sources()} - {""}
    assert rooms <= FLOOR.keys(), f"packages without a floor: {sorted(rooms - FLOOR.keys())}"


def floor_fault(room: str, wanted: Import) -> str | None:
    """Why a file of `room` may not import this name of ours, None when it may."""
    target = room_of(wanted.module)
    if target == "" and wanted.name in FLOOR:
        target = wanted.name or ""
    if target in ("", "__main__"):
        return None if wanted.name in ROOT_NAMES else f"takes {wanted.name} from the root; import its home"
    if target == room:
        return None
    if room in ONLY_BASE and target != "base":
        return f"{room} may import base only, not {target}"
    if FLOOR[target] == FLOOR[room]:
        return f"{room} and {target} are on one floor and do not see each other"
    return f"{room} may not import {target}, which is above it" if FLOOR[target] > FLOOR[room] else None


def library_fault(room: str, wanted: Import) -> str | None:
    """Why a file of `room` may not import this library, None when it may."""
    if wanted.top in EVERYWHERE or wanted.top in sys.stdlib_module_names:
        return None
    if wanted.top not in LIBRARIES:
        return f"{wanted.top} is no library of this package"
    return None if room in LIBRARIES[wanted.top] else f"{wanted.top} is not for {room}"


def faults(source: Source) -> list[str]:
    """All forbidden imports of a file, ready to print."""
    found = []
    for wanted in source.imports:
        fault = (floor_fault if wanted.top == PACKAGE else library_fault)(source.room, wanted)
        if fault and source.module not in SINGLE_FILES.get(wanted.top, ()):
            found.append(f"{source.where}:{wanted.line}: {fault}")
    return list(dict.fromkeys(found))


def test_imports_go_down() -> None:
    found = [fault for source in package_sources() if source.room for fault in faults(source)]
    assert not found, "\n".join(found)


def test_the_root_names_its_homes_lazily() -> None:
    root = package_sources()[0]
    assert root.module == PACKAGE
    body = [node for node in root.tree.body if type(node).__name__.startswith("Import")]
    assert {getattr(node, "module", None) for node in body} <= {"__future__", "importlib", "typing"}


def test_diffusers_judges_from_outside() -> None:
    users = {s.module.split(".")[0] for s in sources_beside() for i in s.imports if i.top == "diffusers"}
    assert users <= {"tests", "bench"}, f"diffusers is imported in {sorted(users)}"


def test_kernels_hold_no_modules() -> None:
    found = [s.where for s in package_sources() if s.room == "kernels" and "nn.Module" in s.text]
    assert not found, f"kernels are functions: {found}"


@pytest.mark.parametrize(
    ("room", "wanted", "allowed"),
    [
        ("flow", Import("sanakit.base", "Grid", 1), True),
        ("flow", Import("sanakit.layers", "Block", 1), False),
        ("text", Import("sanakit.flow", "euler", 1), False),
        ("pipeline", Import("sanakit", "toybox", 1), False),
        ("base", Import("sanakit.cli.app", None, 1), False),
        ("cli", Import("sanakit", "__version__", 1), True),
        ("cli", Import("sanakit", "load", 1), False),
    ],
)
def test_the_floor_rule_itself(room: str, wanted: Import, allowed: bool) -> None:
    assert (floor_fault(room, wanted) is None) == allowed


@pytest.mark.parametrize(
    ("room", "library", "allowed"),
    [("text", "transformers", True), ("weights", "transformers", False), ("cli", "diffusers", False)],
)
def test_the_library_rule_itself(room: str, library: str, allowed: bool) -> None:
    assert (library_fault(room, Import(library, None, 1)) is None) == allowed
