"""A tiny model for batches."""

from __future__ import annotations

from pathlib import Path

import pytest

from sanakit.batch import Loading
from tests.oracles.tiny import Folders


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Folders(tmp_path_factory.mktemp("tiny"))()


@pytest.fixture
def loading(model_folder: Path) -> Loading:
    return Loading(name=str(model_folder), device="cpu", dtype="fp32")
