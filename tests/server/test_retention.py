"""The history is bounded if somebody asks for it: rows and files go together, and nothing that is still needed goes."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import pytest

from sanakit.server import Engine, Job, JobNotFoundError, PictureNotFoundError
from sanakit.server.engine import retention
from sanakit.server.engine.files import Files
from tests.oracles.tiny import Folders, Recipe
from tests.pipeline.test_edit import picture
from tests.server.engines import SECONDS, ask, finished, serving, submit

DAY = 86400.0


@pytest.fixture(scope="module")
def folder(tiny: Folders) -> Path:
    return tiny(Recipe(sample_size=2))


def backdate(data: Path, job: Job, days: float) -> None:
    """Let a job have ended some days ago."""
    with sqlite3.connect(data / "jobs.sqlite3") as db:
        db.execute("update jobs set finished = ? where id = ?", [time.time() - days * DAY, job.id])
    db.close()


def kept(data: Path) -> tuple[int, int]:
    """The numbers of pictures and inputs in a data folder."""
    return len(list(data.glob("pictures/??/*.png"))), len(list(data.glob("inputs/??/*.png")))


def wait_for_expired(engine: Engine, jobs: int) -> None:
    until = time.monotonic() + SECONDS
    while engine.stats.expired < jobs:
        assert time.monotonic() < until, "the jobs stayed"
        time.sleep(0.01)


def test_old_jobs_leave_with_their_files_while_the_server_runs(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "PAUSE", 0.02)
    with serving(tmp_path, folder, keep_days=2.0, batch=1) as engine:
        shared = ask(source=picture(), count=2)
        old, young = (finished(engine, submit(engine, shared)) for _ in range(2))
        drawing = submit(engine, ask(steps=200))
        assert kept(tmp_path) == (4, 1)
        backdate(tmp_path, young, 1.9)
        backdate(tmp_path, old, 2.1)
        wait_for_expired(engine, 1)
        with pytest.raises(JobNotFoundError):
            engine.get(old.id)
        with pytest.raises(PictureNotFoundError):
            engine.picture(old.pictures[0].id)
        assert engine.picture(young.pictures[0].id) and not engine.get(drawing.id).is_finished
        engine.cancel(drawing.id)
    assert kept(tmp_path) == (2, 1), "the other job needs the input"


def test_the_newest_pictures_stay_and_so_does_what_was_finished_just_now(
    folder: Path, tmp_path: Path
) -> None:
    with serving(tmp_path, folder) as engine:
        jobs = [finished(engine, submit(engine, ask(count=count))) for count in (1, 2, 1)]
    with serving(tmp_path, folder, start=False, keep_pictures=2) as engine:
        rules = retention.Retention(engine.config, engine._store, engine._expire)
        assert rules.apply(time.time()) == 0, "clients that waited fetch them now"
        assert rules.apply(time.time() + retention.SETTLED + 1) == 1
        assert [job.id for job in engine.list()] == [jobs[2].id, jobs[1].id]
    assert kept(tmp_path) == (3, 0)


def test_a_process_that_is_killed_in_between_leaves_no_row_without_its_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at an input, then at a picture; what it leaves is removed by the next engine."""

    class KilledError(BaseException):
        pass

    def is_killed(self: Files, name: str) -> None:
        raise KilledError

    with serving(tmp_path, folder) as engine:
        jobs = [
            finished(engine, submit(engine, ask(source=picture(), count=2))),
            finished(engine, submit(engine)),
        ]
    files = [(3, 1), (1, 0), (0, 0)]
    for method, before, after in zip(("remove_input", "remove_picture"), files, files[1:], strict=False):
        with serving(tmp_path, folder, start=False, keep_days=1.0) as engine, monkeypatch.context() as patch:
            assert kept(tmp_path) == before
            patch.setattr(Files, method, is_killed)
            rules = retention.Retention(engine.config, engine._store, engine._expire)
            with pytest.raises(KilledError):
                rules.apply(time.time() + 2 * DAY)
            jobs = jobs[1:]
            assert [job.id for job in engine.list()] == [job.id for job in jobs], "the row went first"
            assert all(engine.picture(each.id) for job in engine.list() for each in job.pictures)
            assert kept(tmp_path) == before
        with serving(tmp_path, folder, start=False):
            assert kept(tmp_path) == after
