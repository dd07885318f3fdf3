"""Two processes for all tests of several, started by the first of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.training.pair import Pair


@pytest.fixture(scope="session")
def pair() -> Iterator[Pair]:
    found = Pair()
    yield found
    found.stop()
