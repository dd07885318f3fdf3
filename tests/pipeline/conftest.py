"""Tiny models, written once per test run."""

from __future__ import annotations

import pytest

from tests.oracles.tiny import Folders


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return Folders(tmp_path_factory.mktemp("tiny"))
