"""Numbers drawn by name: the same everywhere, independent, and over the whole range."""

from __future__ import annotations

from sanakit.training.chance import drawn, share_drawn


def test_a_number_is_of_its_names_alone() -> None:
    assert drawn("caption", 0, 0, "a") == drawn("caption", 0, 0, "a")
    numbers = {
        drawn(1, 2, 3),
        drawn(1, 2, 4),
        drawn(1, 3, 2),
        drawn("caption", 1, 2, 3),
        drawn(12, 3),
        drawn(1, 23),
    }
    assert len(numbers) == 6


def test_it_is_the_same_in_every_version() -> None:
    assert drawn(0, 7, 3) == 12190219675000889363
    assert share_drawn("caption", 0, 0, "a") == 0.08845867179311329


def test_shares_fill_the_range_and_stay_below_1() -> None:
    shares = [share_drawn("crop", 0, epoch, index) for epoch in range(20) for index in range(20)]
    assert len(set(shares)) == 400
    assert 0 <= min(shares) < 0.05
    assert 0.95 < max(shares) < 1


def test_names_need_not_be_valid_text() -> None:
    assert drawn("a\udcff") != drawn("a")
