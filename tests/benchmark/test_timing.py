"""Timing in turn: order, warm runs that do not count, memory, and what is told."""

from __future__ import annotations

import torch

from sanakit.base import heap
from sanakit.benchmark.timing import Contender, alternate


def test_everyone_runs_in_turn_and_the_first_round_does_not_count() -> None:
    order, told = [], []

    def work(name: str) -> Contender:
        def run() -> torch.Tensor:
            order.append(name)
            return torch.full((2,), float(len(order)))

        return Contender(run=run, once=name == "slow")

    found = alternate({name: work(name) for name in ("a", "slow", "b")}, 2, lambda n, s: told.append(n))
    assert order == ["a", "slow", "b", "a", "b", "a", "b"]
    assert told == ["slow", "a", "b", "a", "b"]
    assert [len(found[name].seconds) for name in ("a", "slow", "b")] == [2, 1, 2]
    assert found["slow"].result.tolist() == [2.0, 2.0]
    assert min(found["a"].seconds) <= found["a"].median <= max(found["a"].seconds)


def test_memory_is_what_the_work_added() -> None:
    size = 64 << 20

    def large() -> torch.Tensor:
        return torch.ones(size, dtype=torch.uint8)[:1]

    found = alternate({"large": Contender(run=large), "small": Contender(run=lambda: torch.ones(1))}, 1)
    if found["large"].added is not None:  # None where the system does not tell
        assert size * 0.9 < found["large"].added < size * 2
        assert found["small"].added < size / 4


def test_pages_are_kept_for_those_who_ask(monkeypatch) -> None:
    state = []
    for name in ("keep_pages", "keep_no_pages"):
        monkeypatch.setattr(f"sanakit.benchmark.timing.{name}", lambda name=name: state.append(name))
    seen = {}

    def look(name: str) -> torch.Tensor:
        seen[name] = state[-1]
        return torch.ones(1)

    alternate({n: Contender(run=lambda n=n: look(n), pages=n == "ours") for n in ("ours", "theirs")}, 1)
    assert seen == {"ours": "keep_pages", "theirs": "keep_no_pages"}
    assert state[-1] == "keep_no_pages"
    assert callable(heap.keep_pages)
