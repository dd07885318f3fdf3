"""Tiny models, written once per test run, and the command line over them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.running import Sana
from tests.oracles.tiny import Folders


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return Folders(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def sana(tiny: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sana:
    """The command line, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return Sana(tiny)
