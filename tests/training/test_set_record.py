"""A run that goes on with a changed set says what has changed and what that means."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from sanakit.data import open_set
from sanakit.training.session import Session
from sanakit.training.set_record import SetChange, keep_set, set_change
from tests.training.sets import config, pictures


def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(pictures(), tmp_path / "set"))


def edited(folder: Path, key: str) -> None:
    """Other captions for one picture."""
    table = folder / "captions.jsonl"
    lines = [json.loads(line) for line in table.read_text().splitlines()]
    for line in lines:
        if line["key"] == key:
            line["captions"] = [{"text": "something else"}]
    table.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def test_what_was_added_removed_and_edited_is_counted(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    keep_set(tmp_path, open_set(folder))
    assert not set_change(tmp_path, open_set(folder)) and SetChange().sentence == ""
    (folder / "000001.png").unlink()
    (folder / "000002.png").unlink()
    shutil.copy(folder / "000003.png", folder / "new.png")
    edited(folder, "000005")
    found = set_change(tmp_path, open_set(folder))
    assert found == SetChange(added=1, removed=2, captions=1)
    assert "(1 added, 2 removed, 1 with other captions)" in found.sentence
    assert "no longer repeat this run" in found.sentence


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b", b"not gzip"])
def test_a_record_that_is_missing_or_damaged_is_no_fault(tmp_path: Path, content: bytes) -> None:
    found = open_set(pictures())
    assert not set_change(tmp_path, found)
    (tmp_path / "set.json.gz").write_bytes(content)
    assert not set_change(tmp_path, found)


def test_a_resumed_run_says_it_once_and_goes_on(tmp_path: Path) -> None:
    folder, run = copied(tmp_path), tmp_path / "run"
    data: dict[str, Any] = {"path": str(folder), "square": True}

    def session(steps: int) -> Session:
        changes = {"data": data, "phases": [{"steps": steps, "size": 64}]}
        return Session(config(run, **changes), device="cpu", resume=steps > 2)

    list(session(2).events())
    (folder / "000001.png").unlink()
    again = session(3)
    assert again.plan.warnings == [again.changed.sentence]
    assert "1 removed" in "\n".join(again.plan.lines())
    assert str(list(again.events())[-1]).startswith("step 3: the model is in")
    assert not session(4).changed  # the record is that of the last beginning
