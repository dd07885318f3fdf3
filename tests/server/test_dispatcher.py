"""An engine whose pictures are drawn elsewhere: by replicas of this test, which draw what they are told, or end."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sanakit.base.errors import ConfigError
from sanakit.pipeline.provenance import GENERATED
from sanakit.server import Engine, EngineConfig, Job
from sanakit.server.ray.dispatcher import Dispatcher
from sanakit.server.ray.replicas import News, ReplicaLostError, Task
from sanakit.server.ray.scale import Scale
from tests.oracles.tiny import Folders, Recipe
from tests.server.calling import png
from tests.server.engines import SECONDS, ask, events, finished, submit

DONE = News(kind="picture", png=png(), seed=7, width=64, height=64, counted={"rows": 2, "prompt_misses": 1})


class FakeStream:
    """What a test lets happen to a picture."""

    def __init__(self, task: Task) -> None:
        self.task, self.cancelled = task, False
        self.said: queue.Queue[News | Exception] = queue.Queue()

    def __iter__(self) -> Iterator[News]:
        while not isinstance(said := self.said.get(timeout=SECONDS), Exception):
            yield said
            if said.kind in ("picture", "failed"):
                return
        raise said

    def say(self, *news: News | Exception) -> None:
        for each in news:
            self.said.put(each)

    def cancel(self) -> None:
        self.cancelled = True
        self.say(RuntimeError("cancelled"))


class FakeReplicas:
    """Replicas that a test plays itself. streams: what they were given, in order. told: jobs to make previews for."""

    def __init__(self, places: int) -> None:
        self.places = places
        self.streams: queue.Queue[FakeStream] = queue.Queue()
        self.told: queue.Queue[set[str]] = queue.Queue()

    def draw(self, task: Task) -> FakeStream:
        stream = FakeStream(task)
        self.streams.put(stream)
        return stream

    def watch(self, jobs: Set[str]) -> None:
        self.told.put(set(jobs))

    def next(self) -> FakeStream:
        return self.streams.get(timeout=SECONDS)


Serving = Callable[..., tuple[Engine, FakeReplicas]]


@pytest.fixture
def serving(tiny: Folders, tmp_path: Path) -> Iterator[Serving]:
    """Makes engines over replicas with so many places."""
    engines: list[Engine] = []

    def make(places: int = 4, **options: Any) -> tuple[Engine, FakeReplicas]:
        replicas = FakeReplicas(places)
        config = EngineConfig(
            data=tmp_path, models=(str(tiny(Recipe(sample_size=2))),), device="cpu", **options
        )
        engine = Engine(config, lambda device: None, lambda *parts: Dispatcher(replicas, *parts))
        engines.append(engine)
        engine.start()
        return engine, replicas

    yield make
    for engine in engines:
        engine.stop()


BEGUN = News(kind="started"), News(kind="step", step=1)


def begin(engine: Engine, job: Job, stream: FakeStream) -> None:
    """Make the first step of a job's only picture."""
    stream.say(*BEGUN)
    until = time.monotonic() + SECONDS
    while engine.get(job.id).step == 0:
        assert time.monotonic() < until
        time.sleep(0.005)


@contextmanager
def listening(engine: Engine, job_id: str) -> Iterator[list[str]]:
    """Collects the kinds of a job's events; they are there after the block, in which it ends."""
    kinds: list[str] = []
    subscription = engine.subscribe(job_id)
    yield kinds
    kinds += [event.kind for event in subscription]


def test_pictures_go_out_as_places_allow_and_come_back_as_they_are(serving: Serving) -> None:
    engine, replicas = serving(places=2)
    job = submit(engine, ask(count=3, seed=5, steps=2))
    first, second = replicas.next(), replicas.next()
    assert replicas.streams.empty(), "two places, two pictures"
    assert [each.task.request.seed for each in (first, second)] == [5, 6]
    assert first.task.request.count == 1 and first.task.attempts == 0
    with listening(engine, job.id) as kinds:
        first.say(*BEGUN, News(kind="note", message="the prompt was cut"), DONE)
        third = replicas.next()
        assert third.task.request.seed == 7
        for each in (third, second):
            each.say(*BEGUN, News(kind="note", message="the prompt was cut"), DONE)
    assert kinds.count("note") == 1 and kinds.count("picture") == 3 and kinds[-1] == "done"
    found = engine.get(job.id)
    assert [each.index for each in found.pictures] == [0, 1, 2] and found.step == found.total
    assert engine.picture(found.pictures[1].id) == DONE.png
    stats = engine.stats
    assert (stats.rows, stats.prompt_misses, stats.drawing) == (6, 3, 0)


def test_steps_carry_previews_and_an_eta(serving: Serving) -> None:
    engine, replicas = serving()
    job = submit(engine, ask(steps=2))
    stream = replicas.next()
    stream.say(News(kind="started"), News(kind="step", step=1, preview=b"small"))
    seen = engine.subscribe(job.id, previews=True)
    while (event := seen.next(SECONDS)) is not None and event.job.step == 0:
        pass
    stream.say(News(kind="step", step=2, preview=b"small"), DONE)
    steps = [each for each in events(engine, job, previews=True) if each.kind == "step"]
    assert finished(engine, job).state == "done" and engine.get(job.id).eta is None
    assert all(each.preview == b"small" and each.job.eta is not None for each in steps)


def test_previews_are_asked_for_while_somebody_watches(serving: Serving) -> None:
    engine, replicas = serving()
    job = submit(engine, ask(steps=4, count=2))
    streams = [replicas.next(), replicas.next()]
    assert [each.task.watched for each in streams] == [False, False]
    begin(engine, job, streams[0])
    assert replicas.told.empty(), "nobody watches, and nobody did"
    seen = engine.subscribe(job.id, previews=True)
    streams[0].say(News(kind="step", step=2))
    assert replicas.told.get(timeout=SECONDS) == {job.id}
    streams[0].say(ReplicaLostError("killed"))
    again = replicas.next()
    assert again.task.watched and again.task.job == job.id
    seen.close()
    again.say(*BEGUN)
    assert replicas.told.get(timeout=SECONDS) == set()
    watched = engine.subscribe(job.id, previews=True)
    streams[1].say(*BEGUN, DONE)
    assert replicas.told.get(timeout=SECONDS) == {job.id}
    again.say(DONE)
    assert finished(engine, job).state == "done" and replicas.told.empty(), "its end needs no word"
    watched.close()


def test_a_picture_whose_replica_ends_goes_to_another_one_once(serving: Serving) -> None:
    engine, replicas = serving()
    job = submit(engine, ask(steps=3))
    first = replicas.next()
    begin(engine, job, first)
    listener = engine.subscribe(job.id)
    first.say(ReplicaLostError("killed"))
    second = replicas.next()
    assert second.task.request == first.task.request and second.task.attempts == 1
    assert engine.get(job.id).step == 0, "it begins anew"
    second.say(*BEGUN, DONE)
    assert finished(engine, job).state == "done" and len(engine.get(job.id).pictures) == 1
    assert "the process that drew picture 0 ended: it begins anew" in [event.message for event in listener]


def test_a_picture_that_ends_two_replicas_fails_and_one_that_waited_there_does_not(serving: Serving) -> None:
    engine, replicas = serving()
    guilty, waiting = submit(engine), submit(engine)
    streams = [replicas.next(), replicas.next()]
    for attempt in range(2):
        streams[0].say(*BEGUN)
        for each in streams:
            each.say(ReplicaLostError("killed"))
        again = [replicas.next() for _ in range(2 - attempt)]
        streams = sorted(again, key=lambda each: -each.task.attempts)
        assert [each.task.attempts for each in streams] == [1, 0][attempt:]
    found = finished(engine, guilty)
    assert (found.state, found.error) == ("failed", "its process ended 2 times while it was drawn")
    streams[0].say(*BEGUN, DONE)
    assert finished(engine, waiting).state == "done"


def test_replicas_that_never_begin_are_given_up(serving: Serving) -> None:
    engine, replicas = serving()
    job = submit(engine)
    for _ in range(8):
        replicas.next().say(ReplicaLostError("killed"))
    assert "the processes that were to draw it ended, 8 times" in (finished(engine, job).error or "")


def test_what_a_replica_refuses_and_what_breaks_fails_its_job_alone(serving: Serving) -> None:
    engine, replicas = serving()
    refused, broken, fine = (submit(engine, ask(count=count)) for count in (2, 1, 1))
    streams = [replicas.next() for _ in range(4)]
    streams[0].say(News(kind="failed", message="the prompt is too long"))
    streams[2].say(ValueError("a fault"))
    streams[3].say(News(kind="started"), DONE)
    assert finished(engine, refused).error == "the prompt is too long"
    assert finished(engine, broken).error == "unexpected ValueError: a fault"
    assert finished(engine, fine).state == "done"
    assert streams[1].cancelled, "the other picture of the job that failed"


def test_cancelling_calls_back_what_is_out(serving: Serving) -> None:
    engine, replicas = serving(places=1)
    out, waits = submit(engine), submit(engine)
    stream = replicas.next()
    begin(engine, out, stream)
    engine.cancel(out.id)
    after = replicas.next()
    assert stream.cancelled and engine.get(out.id).state == "cancelled"
    stream.say(DONE)
    after.say(News(kind="started"), DONE)
    assert finished(engine, waits).state == "done" and engine.get(out.id).pictures == ()


def test_draining_waits_for_what_is_out_even_if_its_replica_ends(serving: Serving) -> None:
    engine, replicas = serving(places=1)
    out, waits = submit(engine), submit(engine)
    stream = replicas.next()
    begin(engine, out, stream)
    engine._worker.halt(drain=True)
    stream.say(ReplicaLostError("killed"))
    again = replicas.next()
    assert again.task.request == stream.task.request
    again.say(News(kind="started"), DONE)
    assert finished(engine, out).state == "done"
    engine.stop(drain=True)
    engine, replicas = serving()
    replicas.next().say(News(kind="started"), DONE)
    assert finished(engine, waits).state == "done"


def test_stopping_calls_back_what_is_out_and_the_next_engine_sends_it_again(serving: Serving) -> None:
    engine, replicas = serving()
    job = submit(engine)
    stream = replicas.next()
    begin(engine, job, stream)
    engine.stop()
    assert stream.cancelled
    engine, replicas = serving()
    again = replicas.next()
    assert again.task.attempts == 0, "it ended on purpose"
    again.say(News(kind="started"), DONE)
    assert finished(engine, job).state == "done"


def test_pictures_are_signed_where_the_key_is(serving: Serving) -> None:
    class Signs:
        def sign(self, png: bytes, source_type: str) -> bytes:
            return png + source_type.encode()

    engine, replicas = serving(signer=Signs())
    job = submit(engine)
    replicas.next().say(*BEGUN, DONE)
    assert engine.picture(finished(engine, job).pictures[0].id) == DONE.png + GENERATED.encode()


@pytest.mark.parametrize(
    ("text", "numbers"), [("3", (3, 3)), ("1:4", (1, 4)), ("0", None), ("4:1", None), ("many", None)]
)
def test_replicas_are_a_number_or_a_range(text: str, numbers: tuple[int, int] | None) -> None:
    if numbers is None:
        with pytest.raises(ConfigError, match="N or MIN:MAX"):
            Scale.parse(text)
    else:
        scale = Scale.parse(text)
        assert (scale.least, scale.most) == numbers and scale.cpus(6) == 6
