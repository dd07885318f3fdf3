"""Jobs and pictures in SQLite: what survives a restart.

Write-ahead logging with `synchronous=NORMAL`: a killed process loses nothing that was committed; a power cut may lose
the last moments, and leaves a database that is whole. One connection serves all threads under one lock, since every
statement takes well under a millisecond.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sanakit.base.errors import OutputError
from sanakit.base.json_text import parse_json
from sanakit.pipeline.request import ImageRequest
from sanakit.server.engine.errors import JobNotFoundError
from sanakit.server.engine.jobs import Job, JobPicture, JobState
from sanakit.server.engine.schema import bring_up_to_date

_UNFINISHED: tuple[JobState, ...] = ("queued", "running")


class Store:
    """The database of an engine. Raises ConfigError for one of a later version, OutputError if it can't be written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        with self._refusals():
            self._db = sqlite3.connect(path, check_same_thread=False)
            self._db.row_factory = sqlite3.Row
            for pragma in ("journal_mode = wal", "synchronous = normal", "foreign_keys = on"):
                self._db.execute(f"pragma {pragma}")
            try:
                bring_up_to_date(self._db, path)
            except BaseException:
                self._db.close()
                raise

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._db.close()

    def add(self, job: Job, inputs: Iterable[str]) -> None:
        """Add a job that waits, and the sha256 of the inputs that it needs. Raises OutputError."""
        request = job.request
        texts = [request.prompt, request.source_prompt or "", *(each.prompt for each in request.regions)]
        row = {
            "id": job.id, "model": job.model, "request": json.dumps(request.to_json()),
            "words": "\n".join(texts).lower(), "owner": job.owner, "live": job.live, "state": job.state,
            "created": job.created, "total": job.total,
        }  # fmt: skip
        names, places = ", ".join(row), ", ".join(f":{name}" for name in row)
        with self._transaction() as db:
            number = db.execute(f"insert into jobs ({names}) values ({places})", row).lastrowid
            db.executemany(
                "insert or ignore into inputs (job, sha256) values (?, ?)",
                [(number, each) for each in inputs],
            )

    def get(self, job_id: str) -> Job:
        """Return a job as it is stored. Raises JobNotFoundError."""
        found = self._read("select * from jobs where id = ?", [job_id])
        if not found:
            raise JobNotFoundError("there is no job with this id")
        return found[0]

    def find(
        self,
        *,
        owner: str | None = None,
        states: Sequence[JobState] = (),
        text: str | None = None,
        before: str | None = None,
        limit: int = 50,
    ) -> list[Job]:
        """Return jobs, the newest first: of an owner, in some states, with words in their prompts, before a job."""
        wheres, values = ["1"], list[Any]()
        if owner is not None:
            wheres, values = [*wheres, "owner = ?"], [*values, owner]
        if states:
            wheres, values = [*wheres, f"state in ({_marks(states)})"], [*values, *states]
        for word in (text or "").lower().split():
            wheres, values = [*wheres, "instr(words, ?)"], [*values, word]
        if before is not None:
            wheres, values = [*wheres, "number < (select number from jobs where id = ?)"], [*values, before]
        query = f"select * from jobs where {' and '.join(wheres)} order by number desc limit ?"
        return self._read(query, [*values, limit])

    def unfinished(self) -> list[Job]:
        """Return the jobs that wait or are drawn, the oldest first."""
        return self._read(
            f"select * from jobs where state in ({_marks(_UNFINISHED)}) order by number", _UNFINISHED
        )

    def begin(self, job_id: str, now: float) -> bool:
        """Mark a waiting job as running, one more attempt; return whether it was waiting."""
        return self._change(
            "update jobs set state = 'running', started = ?, attempts = attempts + 1 "
            "where id = ? and state = 'queued'",
            [now, job_id],
        )

    def put_back(self, job_id: str, *, counts: bool) -> None:
        """Let a running job wait again. counts: whether the attempt that ended counts, as it does after a crash."""
        less = 0 if counts else 1
        self._change(
            "update jobs set state = 'queued', started = null, attempts = attempts - ? "
            "where id = ? and state = 'running'",
            [less, job_id],
        )

    def finish(self, job_id: str, state: JobState, now: float, error: str | None = None) -> bool:
        """End a job; return False if it had ended already, or is gone."""
        return self._change(
            f"update jobs set state = ?, finished = ?, error = ? where id = ? and state in ({_marks(_UNFINISHED)})",
            [state, now, error, job_id, *_UNFINISHED],
        )

    def set_notes(self, job_id: str, notes: Sequence[str]) -> None:
        """Keep the sentences that were said about a job."""
        self._change("update jobs set notes = ? where id = ?", [json.dumps(notes), job_id])

    def add_picture(self, job_id: str, picture: JobPicture) -> bool:
        """Add a picture whose file is written; return False if the job has ended or has that picture."""
        return self._change(
            "insert or ignore into pictures (id, job, position, seed, width, height) "
            "select ?, number, ?, ?, ?, ? from jobs where id = ? and state = 'running'",
            [picture.id, picture.index, picture.seed, picture.width, picture.height, job_id],
        )

    def owner_of_picture(self, picture_id: str) -> str | None:
        """Return the owner of a picture's job; None if there is no such picture."""
        with self._transaction() as db:
            row = db.execute(
                "select owner from jobs join pictures on pictures.job = jobs.number where pictures.id = ?",
                [picture_id],
            ).fetchone()
        return None if row is None else str(row["owner"])

    def delete(self, job_id: str) -> list[str]:
        """Delete a job with its pictures; return the sha256 of inputs that no other job needs. Raises as `get`."""
        with self._transaction() as db:
            row = db.execute("select number from jobs where id = ?", [job_id]).fetchone()
            if row is None:
                raise JobNotFoundError("there is no job with this id")
            needed = db.execute("select sha256 from inputs where job = ?", [row["number"]]).fetchall()
            db.execute("delete from jobs where number = ?", [row["number"]])
            return [each["sha256"] for each in needed if not self._needs(db, each["sha256"])]

    def expired(self, settled: float, before: float | None, pictures: int | None) -> list[str]:
        """Return the ids of the jobs that need not be kept, the oldest first, among those that had ended by `settled`.

        before: what had ended by then is one of them. pictures: so is what is older than so many pictures.
        """
        old, values = list[str](), [settled]
        if before is not None:
            old, values = [*old, "finished <= ?"], [*values, before]
        if pictures is not None:
            newest = "select job from pictures order by job desc limit 1 offset ?"
            old, values = [*old, f"number < ({newest})"], [*values, pictures - 1]
        query = f"select id from jobs where finished <= ? and ({' or '.join(old) or '0'}) order by number"
        with self._transaction() as db:
            return [str(row["id"]) for row in db.execute(query, values)]

    def needs_input(self, sha256: str) -> bool:
        """Return whether a job needs an input."""
        with self._transaction() as db:
            return self._needs(db, sha256)

    def pictures(self) -> set[str]:
        """Return the ids of all pictures."""
        with self._transaction() as db:
            return {str(row["id"]) for row in db.execute("select id from pictures")}

    @staticmethod
    def _needs(db: sqlite3.Connection, sha256: str) -> bool:
        return db.execute("select 1 from inputs where sha256 = ? limit 1", [sha256]).fetchone() is not None

    def _change(self, statement: str, values: Sequence[Any]) -> bool:
        with self._transaction() as db:
            return db.execute(statement, values).rowcount > 0

    def _read(self, query: str, values: Sequence[Any]) -> list[Job]:
        with self._transaction() as db:
            rows = db.execute(query, values).fetchall()
            found = db.execute(
                f"select * from pictures where job in ({_marks(rows)}) order by job, position",
                [row["number"] for row in rows],
            ).fetchall()
        pictures: dict[int, list[JobPicture]] = {}
        for each in found:
            pictures.setdefault(each["job"], []).append(_picture(each))
        return [_job(row, pictures.get(row["number"], [])) for row in rows]

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._refusals(), self._db:
            yield self._db

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise OutputError(f"can't use the database {self.path}: {error}") from error


def _marks(values: Sequence[object]) -> str:
    """Return as many question marks as there are values."""
    return ", ".join("?" * len(values))


def _job(row: sqlite3.Row, pictures: Sequence[JobPicture]) -> Job:
    request, total = ImageRequest.from_json(row["request"]), row["total"]
    step = total if row["state"] == "done" else total // request.count * len(pictures)
    return Job(
        id=row["id"], model=row["model"], request=request, owner=row["owner"], live=row["live"], state=row["state"],
        created=row["created"], started=row["started"], finished=row["finished"], step=step, total=total,
        pictures=tuple(pictures), error=row["error"], attempts=row["attempts"],
        notes=tuple(parse_json(row["notes"])),
    )  # fmt: skip


def _picture(row: sqlite3.Row) -> JobPicture:
    return JobPicture(
        id=row["id"], index=row["position"], seed=row["seed"], width=row["width"], height=row["height"]
    )
