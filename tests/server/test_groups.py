"""Who may join, whose turn it is, and that nobody waits for ever."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sanakit.pipeline.loras import LoRAFile
from sanakit.server import EngineConfig
from sanakit.server.engine.book import FULL, Book
from sanakit.server.engine.drawing import Group, Kind, Ongoing, Unfinished
from sanakit.server.engine.groups import Groups
from sanakit.server.engine.jobs import Job
from sanakit.server.engine.pace import LONGEST, UNKNOWN, Pace
from sanakit.server.engine.store import Store
from sanakit.server.engine.subscriptions import Hub
from tests.server.engines import ask

KIND = Kind("toybox", (), (32, 2, 2))
OTHER = replace(KIND, shape=(32, 2, 4))
STYLED = replace(KIND, loras=(LoRAFile(name="style", sha256="a" * 64),))


class Memory:
    """Models of which `free` bytes are left, and any number fit."""

    def __init__(self, free: int | None = None, fits: bool = True) -> None:
        self._free, self._fits = free, fits

    def free(self, name: str) -> int | None:
        return self._free

    def fits(self, *given: Any) -> bool:
        return self._fits

    def batches(self, name: str) -> bool:
        return name != "compiled"


def job(number: int = 0, kind: Kind = KIND, *, retried: bool = False, count: int = 1) -> Unfinished:
    made = Job(id=f"{number:032x}", model=kind.model, request=ask(count=count), created=1.0, total=20 * count)
    return Unfinished(
        job=made, kind=kind, work=0, sample_bytes=10, branches=2, todo=deque(range(count)), retried=retried
    )


def groups(tmp_path: Path, memory: Any = None, **limits: Any) -> Groups:
    return Groups(EngineConfig(data=tmp_path, **limits), memory or Memory())


def join(into: Groups, one: Unfinished) -> Group:
    """Put a picture of a job into its group, without networks."""
    if one.kind not in into._groups:
        served = min((group.served for group in into._groups.values()), default=0.0)
        into._groups[one.kind] = Group(one.kind, Any, served)
    into._groups[one.kind].pictures.append(Ongoing(owner=one, index=0, prepared=Any, drawing=Any))
    return into._groups[one.kind]


def test_a_group_is_bounded_by_the_batch_and_by_memory(tmp_path: Path) -> None:
    found = groups(tmp_path, batch=2)
    join(found, job())
    assert found.refusal()(job()) is None
    join(found, job())
    assert found.refusal()(job()) == FULL
    tight = groups(tmp_path, Memory(free=50))
    join(tight, job())
    assert tight.refusal()(job()) is None  # 4 samples of 10 bytes, in 0.8 of 50
    join(tight, job())
    assert tight.refusal()(job()) == FULL
    compiled = replace(KIND, model="compiled")
    alone = groups(tmp_path)
    join(alone, job(kind=compiled))
    assert alone.refusal()(job(kind=compiled)) == FULL


def test_groups_are_bounded_and_a_transformer_has_one_set_of_loras(tmp_path: Path) -> None:
    found = groups(tmp_path, groups=2)
    join(found, job())
    assert found.refusal()(job(kind=OTHER)) is None
    assert "other LoRAs" in str(found.refusal()(job(kind=STYLED)))
    assert found.refusal()(job(kind=replace(STYLED, model="another"))) is None
    join(found, job(kind=OTHER))
    assert "as many groups" in str(found.refusal()(job(kind=replace(KIND, shape=(32, 8, 8)))))
    tight = groups(tmp_path, Memory(fits=False))
    assert tight.refusal()(job()) is None, "with nothing else on its way it always may"
    join(tight, job())
    assert "does not fit" in str(tight.refusal()(job(kind=OTHER)))


def test_what_ended_with_its_process_is_drawn_alone(tmp_path: Path) -> None:
    found = groups(tmp_path)
    assert found.refusal()(job(retried=True)) is None
    join(found, job())
    assert "alone" in str(found.refusal()(job(retried=True)))
    found = groups(tmp_path)
    join(found, job(retried=True))
    assert "alone" in str(found.refusal()(job()))


def test_turns_go_by_time_served(tmp_path: Path) -> None:
    """A group of large pictures, ten times as slow, makes one step while the other makes ten."""
    found = groups(tmp_path)
    slow, fast = join(found, job()), join(found, job(kind=OTHER))
    steps = {id(slow): 0, id(fast): 0}
    for _ in range(110):
        group = found.next()
        steps[id(group)] += 1
        group.served += 1.0 if group is slow else 0.1
    assert steps[id(slow)] in (10, 11) and steps[id(fast)] in (99, 100)
    late = join(found, job(kind=replace(KIND, shape=(32, 8, 8))))
    assert late.served == min(slow.served, fast.served), "a new one has nothing to catch up on"


def test_after_memory_ran_out_pictures_of_a_group_take_turns() -> None:
    group = Group(KIND, Any, 0.0)  # type: ignore[arg-type]
    group.pictures = [Ongoing(owner=job(n), index=0, prepared=Any, drawing=Any) for n in range(3)]  # type: ignore[arg-type]
    assert len(group.chosen()) == 3
    group.most = 4
    assert [each.owner.job.id for each in group.chosen()] == [job(0).job.id, job(1).job.id]
    group.most = 1
    assert len(group.chosen()) == 1, "one makes a step whatever it takes"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "jobs.sqlite3")


def test_others_overtake_only_for_as_long_as_patience_lasts(tmp_path: Path, store: Store) -> None:
    book = Book(EngineConfig(data=tmp_path, patience=5.0), store, Hub())
    waits, follows = job(1, STYLED), job(2)
    for each in (waits, follows):
        book.submit(each, [])

    def refuses(why: str) -> Any:
        return lambda one: why if one is waits else None

    assert book.next(refuses("other LoRAs")) is follows
    waits.since -= 6.0
    assert book.next(refuses("other LoRAs")) is None, "now everybody waits for it"
    assert book.next(refuses(FULL)) is follows, "a full group holds up nobody but its own"
    assert book.next(lambda one: None) is waits


def test_pictures_of_a_job_are_begun_one_by_one_and_a_job_once(tmp_path: Path, store: Store) -> None:
    book = Book(EngineConfig(data=tmp_path), store, Hub())
    one = job(1, count=3)
    book.submit(one, [])
    assert [book.begin(one), book.begin(one)] == [0, 1]
    assert (one.job.state, one.job.attempts, store.get(one.job.id).attempts) == ("running", 1, 1)
    book.cancel(one.job.id)
    assert book.begin(one) is None and one.ended and not book.has_todo()
    book.end(one, "failed", "too late")
    assert store.get(one.job.id).state == "cancelled"


def test_times_are_those_that_were_measured() -> None:
    pace = Pace()
    assert pace.seconds_left(KIND, 10) is None and pace.retry_after(None, 5) == UNKNOWN
    for _ in range(50):
        pace.step(KIND, seconds=0.1, lap=0.4, rows=4)
    left, own = pace.seconds_left(KIND, 10), pace.seconds_of(KIND, 10)
    assert left == pytest.approx(4.0) and own == pytest.approx(1.0)
    assert pace.seconds_of(OTHER, 10) == pytest.approx(1.0), (
        "what was not measured is taken to be like the rest"
    )
    assert [pace.retry_after(seconds, 4) for seconds in (10.0, 0.1, 1e6)] == [3, 1, LONGEST]
