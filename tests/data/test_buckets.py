"""Buckets: the published tables, other bases, several bases, squares, and small buckets that join a neighbour."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanakit.base.errors import ConfigError
from sanakit.base.sizes import BUCKETS, nearest_bucket
from sanakit.data import BucketRule, Item, assign_buckets, bucket_for, bucket_table, merge_small
from sanakit.data.buckets import cut_away, enlargement


def item(width: int, height: int) -> Item:
    return Item(key="a", width=width, height=height, captions=())


@given(st.integers(1, 9000), st.integers(1, 9000), st.sampled_from(sorted(BUCKETS)))
def test_published_bases_use_the_published_choice(width: int, height: int, base: int) -> None:
    assert bucket_for(item(width, height), BucketRule(bases=(base,))) == nearest_bucket(base, height, width)


@pytest.mark.parametrize("base", [32, 64, 256, 384, 768, 1536])
def test_other_bases_are_scaled_to_multiples_of_32(base: int) -> None:
    table = bucket_table(base)
    assert len(set(table)) == len(table)
    assert (base, base) in table
    assert all(side % 32 == 0 and side > 0 for size in table for side in size)
    if base >= 256:
        assert all(0.75 < height * width / base**2 < 1.3 for height, width in table)


def test_squares() -> None:
    assert bucket_for(item(900, 100), BucketRule(bases=(256,), square=True)) == (256, 256)


def test_a_picture_belongs_to_the_largest_base_it_covers() -> None:
    rule = BucketRule(bases=(512, 256, 1024))
    found = assign_buckets(
        [item(2000, 2000), item(1000, 1000), item(512, 512), item(300, 300), item(20, 20)], rule
    )
    assert found == [(1024, 1024), (512, 512), (512, 512), (256, 256), (256, 256)]
    assert bucket_for(item(900, 900), BucketRule(bases=(512, 1024), enlarge=1.2)) == (1024, 1024)


def test_enlargement_and_what_is_cut() -> None:
    assert enlargement(item(100, 50), (100, 100)) == 2
    assert cut_away(item(200, 100), (64, 64)) == pytest.approx(0.5)
    assert cut_away(item(64, 64), (64, 64)) == pytest.approx(0)


def test_small_buckets_join_their_nearest_neighbour() -> None:
    square, wide, wider = (512, 512), (480, 544), (256, 1024)
    buckets = [square] * 5 + [wide] * 2 + [wider] * 4
    assert merge_small(buckets, 4) == [square] * 7 + [wider] * 4
    assert merge_small(buckets, 2) == buckets
    assert merge_small(buckets, 100) == [square] * 11
    assert merge_small([], 3) == []


@given(st.lists(st.sampled_from(bucket_table(512)), min_size=1, max_size=60), st.integers(1, 20))
def test_after_joining_no_bucket_is_small(buckets: list, least: int) -> None:
    joined = merge_small(buckets, least)
    assert len(joined) == len(buckets)
    assert set(joined) <= set(buckets)
    assert len(set(joined)) == 1 or all(joined.count(bucket) >= least for bucket in set(joined))


@pytest.mark.parametrize("fields", [{"bases": ()}, {"bases": (100,)}, {"bases": (0,)}, {"enlarge": 0.5}])
def test_other_rules_are_refused(fields: dict) -> None:
    with pytest.raises(ConfigError):
        BucketRule(**fields)
