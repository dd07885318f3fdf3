"""Wilson's interval."""

from __future__ import annotations

import math

import pytest

from sanakit.evaluation import Share


def test_known_values() -> None:
    """Newcombe (1998), table I: 81 of 263 and 15 of 148 and 0 of 20."""
    for hits, n, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)):
        assert Share(hits=hits, n=n).interval == pytest.approx((low, high), abs=1e-4)


def test_the_ends_stay_inside_and_hold_the_share() -> None:
    for n in (1, 7, 600):
        for hits in range(0, n + 1, max(1, n // 7)):
            low, high = Share(hits=hits, n=n).interval
            assert 0 <= low <= hits / n <= high <= 1


def test_no_trials() -> None:
    share = Share(hits=0, n=0)
    assert math.isnan(share.accuracy)
    assert share.to_json() == {"accuracy": None, "low": 0.0, "high": 1.0, "n": 0}
    assert str(share) == "no trials"
