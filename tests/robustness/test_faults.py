"""A sample of `make faults`: commands killed, or told that the disk is full, at some of their file operations."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("needs fork", allow_module_level=True)

from bench.fault_cases import Sources, cases
from bench.faults import at_every_operation

SAMPLED = ("convert .pth to a folder", "training checkpoints")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return Sources(tmp_path_factory.mktemp("sources"))


@pytest.mark.parametrize("kind", ["kill", "full"])
@pytest.mark.parametrize("name", SAMPLED)
def test_nothing_is_lost(sources: Sources, tmp_path: Path, name: str, kind: str) -> None:
    case = next(case for case in cases(sources) if case.name == name)
    case.prepare(tmp_path)
    count = at_every_operation(case, tmp_path, kind, every=9)
    assert not count.faults, "\n".join(count.faults)
    assert count.operations > 3
