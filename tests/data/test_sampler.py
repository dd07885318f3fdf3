"""The order of batches: a pure function of (seed, step), of one bucket each, each item once an epoch, for any world."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanakit.base.errors import ConfigError
from sanakit.data import BatchOrder, share

SQUARE, WIDE, TALL = (64, 64), (32, 128), (128, 32)
SETS = st.lists(st.sampled_from((SQUARE, WIDE, TALL)), min_size=12, max_size=60)


def steps_of(order: BatchOrder, epochs: int) -> list:
    return [order.batch(step) for step in range(epochs * order.steps_per_epoch)]


@given(buckets=SETS, batch=st.integers(1, 4), seed=st.integers(0, 2**40), start=st.integers(0, 200))
def test_any_step_can_be_asked_for_first(buckets: list, batch: int, seed: int, start: int) -> None:
    walked = BatchOrder(buckets, batch, seed)
    for step in range(start):
        walked.batch(step)
    fresh = BatchOrder(buckets, batch, seed)
    assert walked.batch(start) == fresh.batch(start)
    assert fresh.batch(0) == walked.batch(0)


@given(buckets=SETS, batch=st.integers(1, 4), seed=st.integers(0, 2**40))
def test_an_epoch_visits_each_item_once_at_most_and_leaves_out_what_it_says(
    buckets: list, batch: int, seed: int
) -> None:
    order = BatchOrder(buckets, batch, seed)
    rests = [count % batch for count in Counter(buckets).values()]
    for epoch in range(2):
        steps = range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
        seen = [index for step in steps for index in order.batch(step).indices]
        assert all(order.batch(step).epoch == epoch for step in steps)
        assert len(seen) == len(set(seen)) == len(buckets) - sum(rests)
    assert order.never == sum(count for count in Counter(buckets).values() if count < batch)


@given(buckets=SETS, batch=st.integers(1, 4), seed=st.integers(0, 99))
def test_every_batch_is_full_and_of_one_bucket(buckets: list, batch: int, seed: int) -> None:
    for found in steps_of(BatchOrder(buckets, batch, seed), 2):
        assert len(found.indices) == batch
        assert {buckets[index] for index in found.indices} == {found.bucket}


@pytest.mark.parametrize("world", [1, 2, 3])
def test_all_worlds_see_the_same_global_batches(world: int) -> None:
    order = BatchOrder([SQUARE] * 40 + [WIDE] * 15, 6, seed=5)
    for batch in steps_of(order, 2):
        shares = [share(batch.indices, rank, world) for rank in range(world)]
        dealt = [shares[place % world][place // world] for place in range(6)]
        assert tuple(dealt) == batch.indices
        assert {len(part) for part in shares} == {6 // world}


def test_epochs_and_seeds_shuffle_items_and_buckets() -> None:
    order = BatchOrder([SQUARE] * 40 + [WIDE] * 40, 4, seed=1)
    first, second = steps_of(order, 2)[:20], steps_of(order, 2)[20:]
    assert [b.indices for b in first] != [b.indices for b in second]
    assert [b.bucket for b in first] != [b.bucket for b in second]
    assert sorted(b.bucket for b in first) != [b.bucket for b in first]
    assert BatchOrder([SQUARE] * 40 + [WIDE] * 40, 4, seed=2).batch(0) != order.batch(0)


def test_in_the_long_run_nothing_is_left_out() -> None:
    order = BatchOrder([SQUARE] * 7, 4, seed=0)
    assert {index for batch in steps_of(order, 20) for index in batch.indices} == set(range(7))


def test_only_usable_items_come() -> None:
    order = BatchOrder([SQUARE] * 10, 2, seed=0, usable=[1, 3, 4, 8])
    assert order.steps_per_epoch == 2
    assert {index for batch in steps_of(order, 1) for index in batch.indices} == {1, 3, 4, 8}


def test_what_cannot_be_dealt_is_refused() -> None:
    with pytest.raises(ConfigError, match="fill no batch of 4"):
        BatchOrder([SQUARE, WIDE, TALL], 4, seed=0)
    with pytest.raises(ConfigError, match="1 picture or more"):
        BatchOrder([SQUARE], 0, seed=0)
    with pytest.raises(ConfigError, match="dealt evenly to 3"):
        share((1, 2, 3, 4), 0, 3)
    with pytest.raises(ConfigError, match="rank 2"):
        share((1, 2), 2, 2)


def test_the_order_of_a_seed_stays_what_it_was() -> None:
    """A run that was begun by an older version goes on with the batches it would have seen."""
    order = BatchOrder([SQUARE] * 9 + [WIDE] * 7, 4, seed=7)
    assert [order.batch(step).indices for step in (0, 1, 2, 3, 100)] == [
        (10, 12, 15, 11), (3, 1, 0, 7), (5, 8, 2, 4), (10, 13, 11, 9), (15, 9, 11, 13),
    ]  # fmt: skip
