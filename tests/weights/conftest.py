"""A tiny model folder written by diffusers, shared by the session (copy it before changing it)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.oracles.tiny import Recipe, write_tiny


@pytest.fixture(scope="session")
def sana_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("sana"), Recipe())


@pytest.fixture(scope="session")
def sprint_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("sprint"), Recipe(sprint=True, lite=True))
