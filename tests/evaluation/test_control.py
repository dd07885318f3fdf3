"""Scores of outlines and maps whose agreement is known."""

from __future__ import annotations

import numpy as np
import pytest

from sanakit.evaluation.control import correlation, edge_f1


def line(column: int) -> np.ndarray:
    outline = np.zeros((20, 40), dtype=bool)
    outline[:, column] = True
    return outline


def test_outlines_within_the_tolerance_count_and_others_do_not() -> None:
    assert edge_f1(line(10), line(10)) == edge_f1(line(12), line(10)) == 1.0
    assert edge_f1(line(13), line(10)) == 0.0
    assert edge_f1(line(13), line(10), tolerance=3) == 1.0


def test_what_is_missed_and_what_is_too_much_cost_the_same() -> None:
    both = line(10) | line(30)
    assert edge_f1(both, line(10)) == edge_f1(line(10), both) == pytest.approx(2 / 3)


def test_empty_outlines() -> None:
    nothing = np.zeros((20, 40), dtype=bool)
    assert edge_f1(nothing, nothing) == 1.0
    assert edge_f1(line(3), nothing) == edge_f1(nothing, line(3)) == 0.0


def test_maps_that_rise_together_correlate_whatever_their_scale() -> None:
    ramp = np.add.outer(np.arange(8.0), np.arange(6.0))
    assert correlation(ramp, 3 * ramp + 7) == pytest.approx(1)
    assert correlation(ramp, -ramp) == pytest.approx(-1)
    assert correlation(ramp, np.ones_like(ramp)) == 0.0
