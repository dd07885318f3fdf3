"""The database: what was committed is there after a restart, and every change happens once."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from sanakit.base.errors import ConfigError, OutputError, RequestError
from sanakit.pipeline.inputs import InputImage
from sanakit.server.engine.errors import JobNotFoundError, PictureNotFoundError
from sanakit.server.engine.files import Files
from sanakit.server.engine.jobs import Job, JobPicture
from sanakit.server.engine.store import Store
from tests.pipeline.test_edit import picture
from tests.server.engines import ask

ID = "0123456789abcdef" * 2


def job(number: int, prompt: str = "a red cube", owner: str = "", count: int = 2) -> Job:
    request = ask(prompt, count=count, guidance=4.5, solver="dpm2")
    return Job(
        id=f"{number:032x}",
        model="toybox",
        request=request,
        owner=owner,
        created=100.0 + number,
        total=2 * count,
    )


def drawn(number: int, index: int = 0) -> JobPicture:
    return JobPicture(id=f"{number:032x}", index=index, seed=2**63 - 1, width=64, height=32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.sqlite3"


def test_jobs_and_pictures_survive(path: Path) -> None:
    store = Store(path)
    store.add(job(1, count=2), ["a" * 64])
    assert store.begin(job(1).id, 200.0)
    assert store.add_picture(job(1).id, drawn(7, 1))
    assert store.add_picture(job(1).id, drawn(8, 0))
    store.close()
    found = Store(path).get(job(1).id)
    wanted = replace(
        job(1), state="running", started=200.0, attempts=1, step=4, pictures=(drawn(8, 0), drawn(7, 1))
    )
    assert found == wanted


def test_a_job_ends_once(path: Path) -> None:
    store = Store(path)
    store.add(job(1), [])
    assert not store.add_picture(job(1).id, drawn(7)), "nothing is drawn of a job that waits"
    assert store.begin(job(1).id, 1.0) and not store.begin(job(1).id, 2.0)
    assert store.finish(job(1).id, "failed", 3.0, "why") and not store.finish(job(1).id, "done", 4.0)
    assert not store.add_picture(job(1).id, drawn(7))
    found = store.get(job(1).id)
    assert (found.state, found.finished, found.error, found.pictures) == ("failed", 3.0, "why", ())


def test_only_an_attempt_that_counts_is_counted(path: Path) -> None:
    store = Store(path)
    store.add(job(1), [])
    store.begin(job(1).id, 1.0)
    store.put_back(job(1).id, counts=False)
    assert (store.get(job(1).id).state, store.get(job(1).id).attempts) == ("queued", 0)
    store.begin(job(1).id, 1.0)
    store.put_back(job(1).id, counts=True)
    assert store.get(job(1).id).attempts == 1


def test_lists_are_searched_and_paged(path: Path) -> None:
    store = Store(path)
    for number, (prompt, owner) in enumerate(
        [("A RED cube", "ann"), ("blue 100% cone", "ann"), ("red_cone", "bob")]
    ):
        store.add(job(number, prompt, owner), [])
    assert [each.owner for each in store.find()] == ["bob", "ann", "ann"]
    assert [each.request.prompt for each in store.find(text="red CUBE")] == ["A RED cube"]
    assert [each.request.prompt for each in store.find(text="%")] == ["blue 100% cone"]
    assert [each.request.prompt for each in store.find(text="d_c")] == ["red_cone"]
    assert [each.id for each in store.find(owner="ann", limit=1)] == [job(1).id]
    assert [each.id for each in store.find(before=job(1).id)] == [job(0).id]
    store.finish(job(0).id, "cancelled", 1.0)
    assert [each.id for each in store.find(states=("cancelled", "done"))] == [job(0).id]
    assert [each.id for each in store.unfinished()] == [job(1).id, job(2).id]


def test_deleting_tells_which_inputs_nobody_needs(path: Path) -> None:
    store, shared, own = Store(path), "a" * 64, "b" * 64
    store.add(job(1), [shared, own])
    store.add(job(2), [shared])
    store.begin(job(1).id, 1.0)
    store.add_picture(job(1).id, drawn(7))
    assert store.pictures() == {drawn(7).id} and store.owner_of_picture(drawn(7).id) == ""
    assert store.delete(job(1).id) == [own]
    assert store.pictures() == set() and store.owner_of_picture(drawn(7).id) is None
    assert store.needs_input(shared) and not store.needs_input(own)
    with pytest.raises(JobNotFoundError):
        store.delete(job(1).id)
    assert store.delete(job(2).id) == [shared]


VERSION_1 = """
create table jobs (
    number integer primary key autoincrement, id text not null unique, model text not null, request text not null,
    words text not null, owner text not null, live text, state text not null, created real not null, started real,
    finished real, total integer not null, error text, attempts integer not null default 0
);
create index jobs_by_state on jobs (state, number);
create index jobs_by_owner on jobs (owner, number);
create table pictures (
    id text primary key, job integer not null references jobs (number) on delete cascade, position integer not null,
    seed integer not null, width integer not null, height integer not null, unique (job, position)
);
create table inputs (
    job integer not null references jobs (number) on delete cascade, sha256 text not null, primary key (job, sha256)
) without rowid;
create index inputs_by_sha256 on inputs (sha256);
pragma user_version = 1;
"""
"""The tables as they were before jobs had notes."""


def test_a_database_of_version_1_keeps_its_jobs_and_takes_notes(path: Path, tmp_path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.executescript(VERSION_1)
        old = job(1)
        values = [old.id, old.model, json.dumps(old.request.to_json()), "", "", "done", 1.0, 2.0, 4]
        db.execute(
            "insert into jobs (id, model, request, words, owner, state, created, finished, total) "
            "values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            values,
        )
    db.close()
    Store(path).close()
    store = Store(path)
    assert (store.get(old.id).request, store.get(old.id).notes) == (old.request, ())
    store.add(job(2), [])
    store.set_notes(job(2).id, ["it does not know: cat", "a second one"])
    store.close()
    assert Store(path).get(job(2).id).notes == ("it does not know: cat", "a second one")
    Store(tmp_path / "new.sqlite3").close()
    assert tables(path) == tables(tmp_path / "new.sqlite3")


def tables(path: Path) -> set[tuple[str, str]]:
    """The columns and indices of a database."""
    with sqlite3.connect(path) as db:
        names = [row[0] for row in db.execute("select name from sqlite_master where type = 'table'")]
        found = {(name, row[1]) for name in names for row in db.execute(f"pragma table_info({name})")}
        found |= {("", row[0]) for row in db.execute("select name from sqlite_master where type = 'index'")}
    db.close()
    return found


def test_what_is_older_than_is_kept(path: Path) -> None:
    """By age, by the number of newer pictures, by both; what has not ended, or ended just now, stays."""
    store = Store(path)
    for number in range(
        5
    ):  # of two pictures each; they end at 100, 101, ... 103, and the last one is still drawn
        store.add(job(number), [])
        store.begin(job(number).id, 0.0)
        for index in range(2):
            store.add_picture(job(number).id, drawn(2 * number + index, index))
        if number < 4:
            store.finish(job(number).id, "done", 100.0 + number)

    def expired(*bounds: float | int | None, settled: float = 1000.0) -> list[int]:
        return [int(each, 16) for each in store.expired(settled, *bounds)]  # type: ignore[arg-type]

    assert expired(None, None) == []
    assert expired(101.0, None) == [0, 1]
    assert expired(None, 4) == [0, 1, 2] and expired(None, 5) == [0, 1], "a job goes as a whole"
    assert expired(None, 100) == []
    assert expired(100.0, 5) == [0, 1] and expired(103.0, 9) == [0, 1, 2, 3]
    assert expired(103.0, 1, settled=100.5) == [0]


def test_another_version_and_another_file_are_refused(path: Path) -> None:
    Store(path).close()
    with sqlite3.connect(path) as db:
        db.execute("pragma user_version = 99")
    db.close()
    with pytest.raises(ConfigError, match="version 99"):
        Store(path)
    path.write_bytes(b"no database at all, but long enough to look like something")
    with pytest.raises(OutputError, match="not a database"):
        Store(path)


def test_inputs_come_back_to_the_pixel_and_names_are_no_paths(tmp_path: Path) -> None:
    files, image = Files(tmp_path), InputImage.of(picture(40, 30, channels=4), "mask.png")
    files.write_input(image)
    bare = InputImage.from_json(image.to_json())
    back = files.read_input(bare)
    assert back == image and back.image.mode == "RGBA" and back.image.tobytes() == image.image.tobytes()
    assert list(files.all_inputs()) == [image.sha256]
    for name in ("../../etc/passwd", "a" * 31, ID.upper(), f"{ID}/", ""):
        with pytest.raises(PictureNotFoundError):
            files.read_picture(name)
    with pytest.raises(RequestError, match="hexadecimal"):
        files.read_input(InputImage(name="x", sha256="../" * 20 + "abcd"))
    files.write_picture(ID, b"png")
    assert files.read_picture(ID) == b"png" and list(files.all_pictures()) == [ID]
    files.remove_picture(ID)
    with pytest.raises(PictureNotFoundError, match=ID):
        files.read_picture(ID)
