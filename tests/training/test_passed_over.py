"""Pictures that can't be used are passed over and told of by name; none of them ends a run or loses its result."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from sanakit.base import ConfigError, InputError
from sanakit.data import open_set
from sanakit.training import read_journal
from sanakit.training.session import Session
from sanakit.training.tasks.training_set import held_items
from tests.training.sets import COUNT, config, pictures


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the small set, to break."""
    target = tmp_path / "set"
    shutil.copytree(pictures(), target)
    return target


def spoil(folder: Path, keys: list[str]) -> None:
    """Cut pictures short."""
    for key in keys:
        path = folder / f"{key}.png"
        path.write_bytes(path.read_bytes()[:200])


def uncaption(folder: Path, keys: list[str]) -> None:
    """Take pictures out of the table of captions."""
    table = folder / "captions.jsonl"
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(line for line in lines if json.loads(line)["key"] not in keys))


def held(folder: Path, count: int) -> list[str]:
    found = open_set(folder)
    return [found[index].key for index in held_items(found, count)]


def run(target: Path, folder: Path, **changes: Any) -> tuple[list[str], list[str]]:
    """What a run says while it prepares, and its events."""
    told: list[str] = []
    data = {"path": str(folder), "square": True, "held": 4} | changes.pop("data", {})
    settings = {"validate": 3} | changes
    session = Session(config(target, data=data, **settings), device="cpu", notify=told.append)
    return told, [str(event) for event in session.events()]


AUTOENCODER: dict[str, Any] = {"task": "autoencoder", "model": {}}


@pytest.mark.parametrize("task", [{}, AUTOENCODER], ids=["transformer", "autoencoder"])
def test_an_unreadable_held_out_picture_is_told_of_by_name(
    folder: Path, tmp_path: Path, task: dict[str, Any]
) -> None:
    first, *_ = held(folder, 4)
    spoil(folder, [first])
    told, events = run(tmp_path / "run", folder, **task)
    assert any("passed over" in line and first in line for line in told + events), told + events
    assert list(read_journal(tmp_path / "run", kind="validation")) == [3, 6]
    assert " is in " in events[-1]


@pytest.mark.parametrize("task", [{}, AUTOENCODER], ids=["transformer", "autoencoder"])
def test_where_none_of_them_can_be_read_the_run_does_not_begin(
    folder: Path, tmp_path: Path, task: dict[str, Any]
) -> None:
    keys = held(folder, 4)
    spoil(folder, keys)
    with pytest.raises(ConfigError, match="none of the 4 pictures that are held out can be read") as failure:
        run(tmp_path / "run", folder, **task)
    assert keys[0] in str(failure.value)
    assert not (tmp_path / "run/checkpoints").exists()


def test_an_autoencoder_tells_which_pictures_it_could_not_train_on(folder: Path, tmp_path: Path) -> None:
    bad = next(item.key for item in open_set(folder) if item.key not in held(folder, 4))
    spoil(folder, [bad])
    told, events = run(tmp_path / "run", folder, **AUTOENCODER, phases=[{"steps": 9, "size": 64}])
    assert any(line.startswith(f"passed over: {bad}: ") for line in told), told
    assert (tmp_path / "run/vae/config.json").exists() and "the autoencoder is in" in events[-1]


def test_no_readable_picture_at_all_is_one_sentence_with_a_name(folder: Path, tmp_path: Path) -> None:
    spoil(folder, [item.key for item in open_set(folder)])
    with pytest.raises(InputError, match="can be read|fill no batch|no picture"):
        run(tmp_path / "run", folder, data={"held": 0}, validate=0, **AUTOENCODER)


def test_pictures_without_a_caption_are_passed_over_counted_and_told(folder: Path, tmp_path: Path) -> None:
    bare = [item.key for item in open_set(folder)][:2]
    uncaption(folder, bare)
    told, events = run(tmp_path / "run", folder)
    assert (
        f"passed over: 2 pictures without a caption ({', '.join(bare)}); data.uncaptioned=empty" in events[0]
    )
    data = {"path": str(folder), "square": True, "held": 4}
    session = Session(config(tmp_path / "plan", data=data), device="cpu")
    assert len(session.task.pictures) == COUNT - 2
    assert "2 pictures without a caption" in "\n".join(session.plan.lines())
    both = Session(config(tmp_path / "both", data=data | {"uncaptioned": "empty"}), device="cpu")
    assert len(both.task.pictures) == COUNT
    assert both.config.identity != session.config.identity
    uncaption(folder, [item.key for item in open_set(folder)])
    with pytest.raises(ConfigError, match=f"none of the {COUNT} pictures .* has a caption"):
        Session(config(tmp_path / "none", data=data), device="cpu")
    Session(
        config(tmp_path / "autoencoder", data=data, **AUTOENCODER), device="cpu"
    )  # which reads no captions
