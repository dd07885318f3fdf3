"""A run that goes on with a changed set or base model says what has changed and what that means."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from sanakit.data import open_set
from sanakit.training.run_record import SetChange, base_change, keep_record, set_change
from sanakit.training.session import Session
from sanakit.weights import read_model_spec, resolve
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
    keep_record(tmp_path, open_set(folder), "")
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


@pytest.mark.parametrize("task", ["transformer", "autoencoder"])
def test_a_run_whose_base_model_was_written_anew_says_so(tmp_path: Path, task: str) -> None:
    base = Path(shutil.copytree(read_model_spec(resolve("toybox")).folder, tmp_path / "base"))
    data = {"path": str(pictures()), "square": True}
    changes: dict[str, Any] = {"base": str(base), "task": task, "model": {}, "data": data}

    def session(steps: int) -> Session:
        phases = [{"steps": steps, "size": 64}]
        return Session(config(tmp_path / "run", **changes, phases=phases), device="cpu", resume=steps > 1)

    list(session(1).events())
    assert not session(2).plan.warnings
    name = {"transformer": "transformer", "autoencoder": "vae"}[task]
    file = base / name / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    save_file({key: tensor + 1 for key, tensor in tensors.items()}, file)
    (warning,) = session(2).plan.warnings
    assert warning.startswith(f"{base} has other weights than when the run began")


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"not json"])
def test_a_record_of_the_base_that_is_missing_or_damaged_is_no_fault(tmp_path: Path, content: bytes) -> None:
    assert base_change(tmp_path, "toybox", "1234") == ""
    (tmp_path / "base.json").write_bytes(content)
    assert base_change(tmp_path, "toybox", "1234") == ""
