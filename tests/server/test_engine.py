"""Jobs from the way in to the picture: drawn together as alone, refused in time, cancelled, kept over restarts."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sanakit.base.errors import (
    InputError,
    ModelNotFoundError,
    NumericsError,
    OutputError,
    RequestError,
    ShortageError,
)
from sanakit.pipeline import ImageRequest, Record, read_picture
from sanakit.pipeline.batching import BatchedDenoiser
from sanakit.server import (
    Engine,
    EngineConfig,
    Job,
    JobNotFoundError,
    JobSpec,
    PictureNotFoundError,
    QueueFullError,
)
from sanakit.server.engine.book import Book
from sanakit.server.engine.store import Store
from tests.oracles.tiny import Folders, Recipe
from tests.pipeline.drawing import open_model
from tests.pipeline.test_edit import box_mask, picture
from tests.server.calling import opened
from tests.server.engines import SECONDS, ask, events, finished, serving, submit, wait_for

LONG = 200
"""Steps of a job that is still drawn when a test does something to it."""


@pytest.fixture(scope="module")
def folder(tiny: Folders) -> Path:
    return tiny(Recipe(sample_size=2))


def image_of(engine: Engine, job: Job, index: int = 0) -> Image.Image:
    return Image.open(io.BytesIO(engine.picture(job.pictures[index].id)))


def record_of(engine: Engine, job: Job, tmp_path: Path, index: int = 0) -> Record:
    place = tmp_path / "read.png"
    place.write_bytes(engine.picture(job.pictures[index].id))
    return read_picture(place)


def differ(one: Image.Image, other: Image.Image) -> int:
    """The largest difference of two pictures in levels of 255."""
    assert one.size == other.size
    return int(np.abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int)).max())


def test_pictures_of_a_mixed_batch_are_those_drawn_alone(folder: Path, tmp_path: Path) -> None:
    """Of one shape and of another, plain, edited, with regions: each is what `Model` draws, and carries its request."""
    source = picture(64, 64)
    requests = [
        ask(count=3, seed=4, guidance=3.0),
        ask("two green cones on grass", steps=5, solver="euler", pag=1.0),
        ask(width=96, seed=9),
        ask(regions=("0,0,0.5,1:a yellow cube",), steps=3),
        ask(source=source, mask=box_mask(64, 64, (0, 0, 30, 63)), steps=4, seed=1),
        ask(source=source, source_prompt="a cone", steps=3, averages=2),
        ask(source=source, source_prompt="a cone", steps=2, how="inversion"),
        ask(source=source, strength=0.0),
    ]
    model = open_model(folder)
    with serving(tmp_path / "data", folder, start=False) as engine:
        jobs = [submit(engine, request) for request in requests]
        assert [job.position for job in jobs] == list(range(len(jobs)))
        engine.start()
        jobs = [finished(engine, job) for job in jobs]
        assert [job.state for job in jobs] == ["done"] * len(jobs), [job.error for job in jobs]
        assert engine.stats.rows > 1.5 * engine.stats.forwards, "they were drawn together"
        for job, request in zip(jobs, requests, strict=True):
            for index, alone in enumerate(model.images(request)):
                assert differ(image_of(engine, job, index), alone) <= 1
                record = record_of(engine, job, tmp_path, index)
                assert record.request == job.request.picture(index) and record.made["model"] == str(folder)
            assert job.step == job.total and job.attempts == 1
        seeds = [(each.index, each.seed, each.width, each.height) for each in jobs[0].pictures]
        assert seeds == [(0, 4, 64, 64), (1, 5, 64, 64), (2, 6, 64, 64)]


def test_events_tell_of_every_step_and_show_it(folder: Path, tmp_path: Path) -> None:
    with serving(tmp_path, folder, start=False) as engine:
        job = submit(engine, ask(steps=4))
        other = submit(engine, ask(width=96))
        silent, waiting = engine.subscribe(job.id), engine.subscribe(other.id)
        engine.start()
        found = events(engine, job, previews=True)
        kinds = [event.kind for event in found]
        assert (kinds[0], kinds[-2:], found[-1].job.state) == ("snapshot", ["picture", "done"], "done")
        steps = [event for event in found if event.kind == "step"]
        assert steps and steps[-1].job.step == 4 and steps[-1].job.eta is not None
        for event in steps:
            assert event.preview is not None
            preview = Image.open(io.BytesIO(event.preview))
            assert preview.format == "JPEG" and preview.size == (256, 256)
        assert found[-2].picture == engine.get(job.id).pictures[0]
        assert all(event.preview is None for event in silent)
        told = [event.job.position for event in waiting if event.kind in ("snapshot", "queued")]
        assert told[0] == 1 and finished(engine, other).state == "done"


def test_steps_are_counted_and_averages_are_not(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither are those of a pass that found no memory."""
    counted, stepped, predict, faults = (
        list[int](),
        Book.stepped,
        BatchedDenoiser.predict,
        iter([MemoryError()]),
    )

    def counts(self: Book, jobs: Any, *rest: Any) -> None:
        counted.extend(count for _, count in jobs)
        stepped(self, jobs, *rest)

    def fails(self: BatchedDenoiser, inputs: Any) -> Any:
        if len(inputs) > 2 and (fault := next(faults, None)) is not None:
            raise fault
        return predict(self, inputs)

    monkeypatch.setattr(Book, "stepped", counts)
    monkeypatch.setattr(BatchedDenoiser, "predict", fails)
    with serving(tmp_path, folder, start=False) as engine:
        edit = submit(
            engine, ask(source=picture(), source_prompt="a cone", steps=3, averages=4, strength=1.0)
        )
        plain = submit(engine, ask(steps=5))
        engine.start()
        found = [finished(engine, job) for job in (edit, plain)]
    assert [job.state for job in found] == ["done", "done"] and next(faults, None) is None
    assert sum(counted) == sum(job.total for job in found) == 8


def test_the_queue_is_bounded_and_says_when_to_come_back(folder: Path, tmp_path: Path) -> None:
    with serving(tmp_path, folder, start=False, queue=2) as engine:
        jobs = [submit(engine), submit(engine)]
        with pytest.raises(QueueFullError) as refused:
            submit(engine)
        assert refused.value.retry_after >= 1
        assert (engine.stats.queued, engine.stats.refused) == (2, 1)
        engine.cancel(jobs[0].id)
        assert engine.get(jobs[1].id).position == 0
        submit(engine)


BAD: dict[str, tuple[Callable[[Engine], object], type[Exception], str]] = {
    "a model": (
        lambda e: e.submit(_spec("absent")), ModelNotFoundError, "there is no model 'absent' here",
    ),
    "a size": (lambda e: submit(e, ask(width=16384, height=16384)), RequestError, "may have .* pixels here"),
    "a size that the model can't draw": (lambda e: submit(e, ask(width=72)), RequestError, "72"),
    "steps": (lambda e: submit(e, ask(steps=900)), RequestError, "steps may be 200 here, not 900"),
    "a count": (lambda e: submit(e, ask(count=900)), RequestError, "count may be 64 here, not 900"),
    "a job": (lambda e: e.get("a" * 32), JobNotFoundError, "no job"),
    "another's job": (lambda e: e.get(submit(e, owner="ann").id, "bob"), JobNotFoundError, "no job"),
    "a picture": (lambda e: e.picture("a" * 32), PictureNotFoundError, "no picture"),
    "another's picture": (lambda e: e.picture("a" * 32, "bob"), PictureNotFoundError, "no picture"),
    "a LoRA": (lambda e: e.catalogue.lora("style"), RequestError, "there is no LoRA 'style' here"),
    "a control": (lambda e: e.catalogue.control("edges"), RequestError, "there is no control 'edges' here"),
}  # fmt: skip


def _spec(model: str) -> JobSpec:
    return JobSpec(model=model, request=ask())


@pytest.fixture(scope="module")
def idle(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with serving(tmp_path_factory.mktemp("idle"), folder, start=False) as engine:
        yield engine


@pytest.mark.parametrize("what", BAD)
def test_what_can_not_be_had_is_refused_in_a_sentence(what: str, idle: Engine) -> None:
    call, kind, words = BAD[what]
    with pytest.raises(kind, match=words) as told:
        call(idle)
    assert isinstance(told.value, InputError)


def test_a_picture_that_memory_can_not_hold_is_refused_before_it_is_accepted(
    folder: Path, tmp_path: Path
) -> None:
    with serving(tmp_path, folder, start=False, free=lambda device: 20_000_000) as engine:
        submit(engine)
        with pytest.raises(ShortageError, match=r"needs about .* GB of memory.*smaller size"):
            submit(engine, ask(width=2048, height=2048))
        assert engine.stats.submitted == 1


def test_cancelling_ends_what_waits_at_once_and_what_is_drawn_at_a_step(folder: Path, tmp_path: Path) -> None:
    with serving(tmp_path, folder, batch=1) as engine:
        drawn = submit(engine, ask(steps=LONG, count=2))
        waits = submit(engine, ask(steps=LONG))
        wait_for(engine, drawn, "step")
        for job in (waits, drawn):
            listener = engine.subscribe(job.id)
            assert engine.cancel(job.id).state == "cancelled"
            assert [*listener][-1].kind == "cancelled"
        after = submit(engine)
        assert finished(engine, after).state == "done"
        assert engine.get(drawn.id).pictures == () and engine.stats.cancelled == 2
        assert engine.cancel(after.id).state == "done", "what is finished stays as it is"


def test_deleting_removes_job_pictures_and_inputs(folder: Path, tmp_path: Path) -> None:
    with serving(tmp_path, folder) as engine:
        edits = [submit(engine, ask(source=picture(), seed=seed)) for seed in range(2)]
        edits = [finished(engine, job) for job in edits]
        assert len(list(tmp_path.glob("inputs/??/*.png"))) == 1, "kept once"
        engine.delete(edits[0].id)
        assert len(list(tmp_path.glob("inputs/??/*.png"))) == 1
        engine.delete(edits[1].id)
        assert list(tmp_path.glob("inputs/??/*.png")) == list(tmp_path.glob("pictures/??/*.png")) == []
        with pytest.raises(PictureNotFoundError):
            engine.picture(edits[0].pictures[0].id)
        drawn = submit(engine, ask(steps=LONG))
        wait_for(engine, drawn, "step")
        listener = engine.subscribe(drawn.id)
        engine.delete(drawn.id)
        assert [*listener][-1].kind == "cancelled"
        assert finished(engine, submit(engine)).state == "done"
        assert len(list(tmp_path.glob("pictures/??/*.png"))) == 1


def test_drawing_while_typing_cancels_what_is_stale(folder: Path, tmp_path: Path) -> None:
    with serving(tmp_path, folder, start=False) as engine:
        mine = [submit(engine, ask(steps=LONG), owner="ann", live="page") for _ in range(3)]
        others = submit(engine, owner="bob", live="page"), submit(engine, owner="ann", live="other")
        states = [engine.get(job.id).state for job in (*mine, *others)]
        assert states == ["cancelled", "cancelled", "queued", "queued", "queued"]
        engine.start()
        wait_for(engine, mine[2], "step")
        last = submit(engine, owner="ann", live="page")
        assert engine.get(mine[2].id).state == "cancelled" and finished(engine, last).state == "done"
        kept = submit(engine)
        live, plain = (engine.picture(finished(engine, job).pictures[0].id) for job in (last, kept))
        assert differ(opened(live), opened(plain)) == 0 and len(live) > len(plain), "packed in less time"


def test_stopping_persists_and_the_next_engine_goes_on(folder: Path, tmp_path: Path) -> None:
    with serving(tmp_path, folder, batch=1) as engine:
        drawn, waits = submit(engine, ask(steps=LONG)), submit(engine, ask(source=picture(), steps=4))
        wait_for(engine, drawn, "step")
        listener = engine.subscribe(drawn.id)
    assert not list(listener)[-1].is_last, "a subscription ends with its engine, not with its job"
    with serving(tmp_path, folder) as engine:
        found = [finished(engine, job) for job in (drawn, waits)]
        assert [(job.state, job.attempts) for job in found] == [("done", 1)] * 2


def test_draining_finishes_what_is_drawn_and_keeps_what_waits(folder: Path, tmp_path: Path) -> None:
    with serving(tmp_path, folder, batch=1) as engine:
        drawn, waits = submit(engine, ask(steps=LONG)), submit(engine)
        wait_for(engine, drawn, "step")
        engine.stop(drain=True, seconds=SECONDS)
    with serving(tmp_path, folder, start=False) as engine:
        assert [engine.get(job.id).state for job in (drawn, waits)] == ["done", "queued"]


def test_a_job_that_ran_at_a_crash_is_tried_once_more(folder: Path, tmp_path: Path) -> None:
    """A killed process leaves its jobs running: with one attempt behind them they are drawn again, with two not."""
    with serving(tmp_path, folder, start=False) as engine:
        once, twice, never = (submit(engine, ask(count=2, seed=seed)) for seed in range(3))
    store = Store(tmp_path / "jobs.sqlite3")
    for job, attempts in ((once, 1), (twice, 2)):
        for attempt in range(attempts):
            assert store.begin(job.id, 1.0)
            if attempt + 1 < attempts:
                store.put_back(job.id, counts=True)
    store.close()
    with serving(tmp_path, folder) as engine:
        assert [finished(engine, job).state for job in (once, never)] == ["done", "done"]
        failed = engine.get(twice.id)
        assert (failed.state, failed.error) == ("failed", "the server ended 2 times while it was drawn")
        assert (engine.get(once.id).attempts, engine.get(never.id).attempts) == (2, 1)


def test_pictures_before_a_crash_are_kept_and_files_without_a_job_swept(folder: Path, tmp_path: Path) -> None:
    with serving(tmp_path, folder) as engine:
        job = finished(engine, submit(engine, ask(count=2)))
        first, second = (engine.picture(each.id) for each in job.pictures)
    store = Store(tmp_path / "jobs.sqlite3")
    with store._transaction() as db:  # as if it had been killed between the files of both pictures
        db.execute("update jobs set state = 'running', finished = null")
        db.execute("delete from pictures where position = 1")
    store.close()
    with serving(tmp_path, folder) as engine:
        again = finished(engine, job)
        assert again.pictures[0] == job.pictures[0] and again.pictures[1].id != job.pictures[1].id
        assert [engine.picture(each.id) for each in again.pictures] == [first, second]
        with pytest.raises(PictureNotFoundError):
            engine.picture(job.pictures[1].id)


def test_what_can_not_be_drawn_any_more_fails_at_the_start(
    folder: Path, tiny: Folders, tmp_path: Path
) -> None:
    with serving(tmp_path, folder, start=False) as engine:
        edit, plain = submit(engine, ask(source=picture())), submit(engine)
    for place in tmp_path.glob("inputs/??/*.png"):
        place.unlink()
    with serving(tmp_path, tiny(Recipe(sprint=True, sample_size=2))) as engine:
        assert "is not in the data folder any more" in (engine.get(edit.id).error or "")
        assert "there is no model" in (engine.get(plain.id).error or "")


def test_one_engine_at_a_time_uses_a_folder(folder: Path, tmp_path: Path) -> None:
    with serving(tmp_path, folder, start=False), pytest.raises(OutputError, match="is in use"):
        Engine(_config(tmp_path, folder))
    with serving(tmp_path, folder, start=False):
        pass


def _config(data: Path, folder: Path) -> EngineConfig:
    return EngineConfig(data=data, models=(str(folder),))


def test_prompts_are_encoded_once_and_cut_only_with_leave(folder: Path, tmp_path: Path) -> None:
    long = " ".join(["red"] * 400)
    with serving(tmp_path, folder, start=False) as engine:
        jobs = [submit(engine, ask(seed=seed)) for seed in range(3)]
        cut = submit(engine, ask(long, truncate=True))
        listener = engine.subscribe(cut.id)
        refused = submit(engine, ask(long))
        engine.start()
        assert [finished(engine, job).state for job in jobs] == ["done"] * 3
        assert any("were cut" in (event.message or "") for event in listener if event.kind == "note")
        found = finished(engine, refused)
        assert found.state == "failed" and "the prompt is too long" in (found.error or "")
        stats = engine.stats
        assert (stats.prompt_hits, stats.prompt_misses) == (2, 3)


def test_numbers_that_break_fail_one_job_and_no_other(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict = BatchedDenoiser.predict

    def breaks(self: BatchedDenoiser, inputs: Any) -> Any:
        found = predict(self, inputs)
        return [
            velocity * float("nan") if each.plan.request.seed == 13 else velocity
            for velocity, each in zip(found, inputs, strict=True)
        ]

    def raises(drawing: Any) -> Any:
        raise NumericsError("values are NaN after denoise step 1, layer blocks.0")

    monkeypatch.setattr(BatchedDenoiser, "predict", breaks)
    monkeypatch.setattr("sanakit.pipeline.denoiser.Drawing.advance", raises)
    with serving(tmp_path, folder, start=False) as engine:
        jobs = [submit(engine, ask(seed=seed, steps=4)) for seed in (1, 13, 2)]
        engine.start()
        found = [finished(engine, job) for job in jobs]
        assert [job.state for job in found] == ["done", "failed", "done"]
        assert "layer blocks.0" in (found[1].error or "")


def test_a_disk_that_is_full_for_a_while_loses_no_job(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing can be begun: jobs wait. No end can be noted: the job has ended, and is drawn again after a restart."""
    begin, finish, faults = Store.begin, Store.finish, iter([True, True])

    def full(self: Store, *given: Any) -> bool:
        if next(faults, False):
            raise OutputError("can't use the database: no space left on device")
        return (begin if len(given) == 2 else finish)(self, *given)

    monkeypatch.setattr("sanakit.server.engine.worker._PAUSE", 0.01)
    monkeypatch.setattr(Store, "begin", full)
    with serving(tmp_path, folder) as engine:
        job = submit(engine)
        assert finished(engine, job).state == "done" and next(faults, None) is None
    monkeypatch.undo()
    with serving(tmp_path, folder) as engine:
        faults = iter([True])
        monkeypatch.setattr(Store, "finish", full)
        other = submit(engine)
        assert finished(engine, other).pictures
        monkeypatch.undo()
    with serving(tmp_path, folder, start=False) as engine:
        assert engine.get(other.id).state == "running"
        engine.start()
        assert engine.get(other.id).state == "done", "its pictures were all there"


def test_a_preview_that_can_not_be_made_costs_no_picture(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*given: Any) -> bytes:
        raise OSError("no space left on device")

    monkeypatch.setattr("sanakit.server.engine.previews.Previews.jpeg", fails)
    with serving(tmp_path, folder) as engine:
        found = events(engine, submit(engine, ask(steps=30)), previews=True)
        assert found[-1].kind == "done" and all(event.preview is None for event in found)


@pytest.mark.parametrize(
    ("error", "lets"), [(MemoryError(), 2), (RuntimeError("shapes differ"), 1)], ids=["memory", "fault"]
)
def test_a_pass_that_fails_is_made_in_parts(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, lets: int
) -> None:
    """Memory that runs out halves the batch; any other fault is looked for picture by picture."""
    predict, sizes = BatchedDenoiser.predict, list[int]()

    def limited(self: BatchedDenoiser, inputs: Any) -> Any:
        sizes.append(len(inputs))
        if len(inputs) > lets:
            raise error
        if any(each.plan.request.seed == 13 for each in inputs) and lets == 1:
            raise error
        return predict(self, inputs)

    monkeypatch.setattr(BatchedDenoiser, "predict", limited)
    seeds = (1, 2, 13, 3)
    with serving(tmp_path, folder, start=False) as engine:
        jobs = [submit(engine, ask(seed=seed, guidance=1.0)) for seed in seeds]
        engine.start()
        states = {seed: finished(engine, job) for seed, job in zip(seeds, jobs, strict=True)}
    culprit = states.pop(13)
    assert {job.state for job in states.values()} == {"done"} and max(sizes) == 4
    assert culprit.state == ("done" if lets == 2 else "failed"), culprit.error
    if lets == 1:
        assert culprit.error == "unexpected RuntimeError: shapes differ"


def test_two_models_are_served_side_by_side(folder: Path, tiny: Folders, tmp_path: Path) -> None:
    few = tiny(Recipe(sprint=True, sample_size=2))
    with serving(tmp_path, folder, few) as engine:
        jobs = [
            engine.submit(
                JobSpec(
                    model=str(model), request=ImageRequest(prompt="a cube", seed=seed, width=64, height=64)
                )
            )
            for seed in range(2)
            for model in (folder, few)
        ]
        found = [finished(engine, job) for job in jobs]
        assert [job.state for job in found] == ["done"] * 4
        assert [job.request.steps for job in found] == [20, 2, 20, 2]
        described = engine.capabilities()
        assert [each["few_steps"] for each in described["models"]] == [False, True]
        assert described["models"][1]["solvers"] == ["scm"] and described["limits"]["queue"] == 256


def test_waiting_is_measured(folder: Path, tmp_path: Path) -> None:
    with serving(tmp_path, folder) as engine:
        finished(engine, submit(engine, ask(steps=5)))
        stats = engine.stats
        assert (stats.done, stats.pictures, stats.waits, stats.forwards, stats.rows) == (1, 1, 1, 5, 5)
        assert stats.forward_seconds > 0 and stats.model_bytes > 0 and stats.free_bytes
        drawn, waits = submit(engine, ask(steps=LONG, count=2)), submit(engine, ask(width=96, steps=LONG))
        wait_for(engine, drawn, "step")
        eta = engine.get(waits.id).eta
        assert eta is not None and eta > 0
        assert engine.get(waits.id).created <= time.time()
