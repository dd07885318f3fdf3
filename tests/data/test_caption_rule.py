"""Captions by their scores: the two rules against their formulas, dropout, and purity."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from sanakit.base.errors import ConfigError
from sanakit.data.caption_rule import (
    CaptionRule,
    caption_for,
    caption_shares,
    choose_caption,
)
from sanakit.data.items import Caption, Item

SCORES = (31.0, 28.5, 25.0, 24.9)
CAPTIONS = tuple(Caption(text=f"c{index}", score=score) for index, score in enumerate(SCORES))
DRAWS = 20_000


def share_of(rule: CaptionRule, captions: tuple[Caption, ...] = CAPTIONS) -> dict[str, float]:
    item = Item(key="a", width=8, height=8, captions=captions)
    counts = Counter(caption_for(item, rule, seed=3, epoch=epoch) for epoch in range(DRAWS))
    return {text: count / DRAWS for text, count in counts.items()}


def near(share: float) -> object:
    """Four standard deviations of a share of DRAWS."""
    return pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / DRAWS) + 1e-9)


def test_softmax_is_the_formula_of_the_paper() -> None:
    total = sum(math.exp(score / 2.0) for score in SCORES)
    wanted = [math.exp(score / 2.0) / total for score in SCORES]
    rule = CaptionRule(kind="softmax", temperature=2.0, dropout=0)
    assert caption_shares(CAPTIONS, rule) == pytest.approx(wanted)
    drawn = share_of(rule)
    for index, share in enumerate(wanted):
        assert drawn[f"c{index}"] == near(share)


def test_power_keeps_what_reaches_the_threshold() -> None:
    total = sum(score**2 for score in SCORES[:3])
    wanted = [score**2 / total for score in SCORES[:3]]
    rule = CaptionRule(kind="power", temperature=0.5, dropout=0)
    assert caption_shares(CAPTIONS, rule) == pytest.approx([*wanted, 0.0])
    drawn = share_of(rule)
    assert set(drawn) == {"c0", "c1", "c2"}
    for index, share in enumerate(wanted):
        assert drawn[f"c{index}"] == near(share)


def test_power_takes_the_best_where_none_is_good() -> None:
    rule = CaptionRule(kind="power", threshold=40, dropout=0)
    assert caption_shares(CAPTIONS, rule) == [1.0, 0.0, 0.0, 0.0]
    below_zero = (Caption(text="a", score=-3.0), Caption(text="b", score=-1.0))
    assert caption_shares(below_zero, CaptionRule(threshold=-9)) == [0.0, 1.0]


@pytest.mark.parametrize("kind", ["power", "softmax"])
def test_a_small_temperature_leaves_the_range_of_no_number(kind: str) -> None:
    shares = caption_shares(CAPTIONS, CaptionRule(kind=kind, temperature=1e-4))  # type: ignore[arg-type]
    assert shares == pytest.approx([1.0, 0.0, 0.0, 0.0])


def test_uniform_and_first_read_no_score() -> None:
    assert caption_shares(CAPTIONS, CaptionRule(kind="uniform")) == [0.25] * 4
    assert caption_shares(CAPTIONS, CaptionRule(kind="first")) == [1.0, 0.0, 0.0, 0.0]


def test_captions_without_a_score() -> None:
    mixed = (Caption(text="own"), Caption(text="told", score=30.0))
    assert caption_shares(mixed, CaptionRule()) == [0.0, 1.0]
    bare = (Caption(text="own"), Caption(text="other", score=math.nan))
    assert caption_shares(bare, CaptionRule()) == [0.5, 0.5]


@pytest.mark.parametrize("kind", ["power", "softmax", "uniform", "first"])
def test_dropout_drops_its_share_and_leaves_the_others_as_they_were(kind: str) -> None:
    rule = CaptionRule(kind=kind, temperature=2.0, dropout=0.1)  # type: ignore[arg-type]
    drawn = share_of(rule)
    assert drawn[""] == near(0.1)
    for caption, share in zip(CAPTIONS, caption_shares(CAPTIONS, rule), strict=True):
        assert drawn.get(caption.text, 0.0) == near(0.9 * share)


def test_the_ends_of_dropout() -> None:
    assert set(share_of(CaptionRule(dropout=1))) == {""}
    assert "" not in share_of(CaptionRule(dropout=0))
    assert choose_caption((), 0.5, CaptionRule(dropout=0)) == ""


def test_the_largest_number_draws_a_caption_that_can_be_drawn() -> None:
    captions = tuple(Caption(text=str(k), score=30.0) for k in range(7)) + (Caption(text="bad", score=1.0),)
    assert choose_caption(captions, 1 - 2**-53, CaptionRule(dropout=0)) == "6"


def test_a_draw_depends_on_seed_epoch_and_key_alone() -> None:
    rule = CaptionRule(kind="uniform")
    item = Item(key="a", width=1, height=1, captions=CAPTIONS)
    assert caption_for(item, rule, seed=0, epoch=7) == caption_for(item, rule, seed=0, epoch=7)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"kind": "best"}, "unknown caption rule 'best'"),
        ({"temperature": 0.0}, "above 0"),
        ({"temperature": math.inf}, "above 0"),
        ({"threshold": math.nan}, "threshold"),
        ({"dropout": 1.5}, "share in 0..1"),
    ],
)
def test_rules_that_are_none(fields: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        CaptionRule(**fields)
