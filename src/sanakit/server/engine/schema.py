"""The tables of a data folder, and how a database of an older version becomes one of this."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from sanakit.base.errors import ConfigError

VERSION = 2
_TABLES = """
create table jobs (
    number integer primary key autoincrement,  -- the order in which jobs came
    id text not null unique,
    model text not null,
    request text not null,                     -- as ImageRequest.to_json
    words text not null,                       -- the prompts, in lower case, for searching
    owner text not null,
    live text,
    state text not null,
    created real not null,
    started real,
    finished real,
    total integer not null,
    error text,
    attempts integer not null default 0,
    notes text not null default '[]'           -- sentences, as a JSON array
);
create index jobs_by_state on jobs (state, number);
create index jobs_by_owner on jobs (owner, number);
create index jobs_by_end on jobs (finished);
create table pictures (
    id text primary key,
    job integer not null references jobs (number) on delete cascade,
    position integer not null,
    seed integer not null,
    width integer not null,
    height integer not null,
    unique (job, position)
);
create table inputs (
    job integer not null references jobs (number) on delete cascade,
    sha256 text not null,
    primary key (job, sha256)
) without rowid;
create index inputs_by_sha256 on inputs (sha256);
"""
_CHANGES = {
    0: _TABLES,
    1: """
alter table jobs add column notes text not null default '[]';
create index jobs_by_end on jobs (finished);
""",
}
"""Version -> what makes a database of it one of the next version, or a new one, 0, one of this version."""


def bring_up_to_date(db: sqlite3.Connection, path: Path) -> None:
    """Make the tables of a new database, or add to an older one what it lacks: all of it, or nothing if it is killed.

    Raises ConfigError for a database of a later version.
    """
    version = db.execute("pragma user_version").fetchone()[0]
    if version > VERSION:
        raise ConfigError(
            f"{path} is of version {version}, and this sanakit reads up to version {VERSION}: update sanakit, or "
            "choose another data folder"
        )
    changes = _CHANGES[0] if version == 0 else "".join(_CHANGES[each] for each in range(version, VERSION))
    if changes:
        db.executescript(f"begin immediate; {changes} pragma user_version = {VERSION}; commit;")
