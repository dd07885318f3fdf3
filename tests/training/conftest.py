"""What tests of training share: two processes, started by the first that asks, and a small model to distil."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.training.pair import Pair
from tests.training.sets import SHAPE
from tests.training.test_session import run


@pytest.fixture(scope="session")
def pair() -> Iterator[Pair]:
    found = Pair()
    yield found
    found.stop()


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small flow model, hardly trained."""
    folder = tmp_path_factory.mktemp("teacher")
    run(folder, phases=[{"steps": 1, "size": 64}], model={"start": "scratch", "changes": SHAPE})
    return folder / "model"
