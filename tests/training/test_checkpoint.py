"""Checkpoints appear whole or not at all, damaged ones are passed over, and nothing is lost when a disk refuses."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sanakit.base import ConfigError, OutputError, WeightsError
from sanakit.training import Checkpoints, join_world
from sanakit.training.checkpoint import fault_of, read_facts, read_into
from tests.training.pair import Pair
from tests.training.small import same, start, train

TENSORS = {
    "a": torch.arange(6.0).reshape(2, 3),
    "b": torch.tensor(3),
    "c": torch.arange(5, dtype=torch.uint8),
}


def written(folder: Path, *steps: int, keep: int = 0) -> Checkpoints:
    checkpoints = Checkpoints(folder, keep=keep)
    for step in steps:
        checkpoints.save(step, {**TENSORS, "b": torch.tensor(step)}, {"step": step})
    return checkpoints


def test_every_dtype_and_shape_comes_back(tmp_path: Path) -> None:
    newest = written(tmp_path, 7).latest()
    assert newest is not None
    empty = {name: torch.empty_like(tensor) for name, tensor in TENSORS.items()}
    read_into(newest, empty)
    assert all(torch.equal(empty[name], TENSORS[name]) for name in ("a", "c"))
    assert (int(empty["b"]), read_facts(newest)) == (7, {"step": 7})


def test_weights_in_channels_last_come_back_as_they_were(tmp_path: Path) -> None:
    weight = torch.randn(4, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"w": weight}, {"step": 1})
    checkpoints.save_behind(2, {"w": weight}, {"step": 2})
    checkpoints.finish()
    for step in (1, 2):
        read = torch.empty_like(weight)
        read_into(checkpoints.path(step), {"w": read})
        assert torch.equal(read, weight) and read.is_contiguous(memory_format=torch.channels_last)


def test_the_tensors_are_plain_safetensors(tmp_path: Path) -> None:
    newest = written(tmp_path, 1).latest()
    assert newest is not None
    files = [load_file(path) for path in newest.glob("*.safetensors")]
    assert torch.equal(files[0]["a"], TENSORS["a"])


def test_the_last_ones_stay(tmp_path: Path) -> None:
    assert written(tmp_path, 1, 2, 10, keep=2).steps() == [2, 10]
    assert written(tmp_path, 11, keep=0).steps() == [2, 10, 11]


def _damage(folder: Path, harm: str) -> None:
    """One kind of damage to a checkpoint; a word with a dash replaces what the manifest says."""
    shard = next(folder.glob("*.safetensors"))
    content = shard.read_bytes()
    manifest = json.loads((folder / "manifest.json").read_text())
    if harm == "cut":
        shard.write_bytes(content[:-1])
    elif harm == "flip":
        shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif harm == "lose":
        shard.unlink()
    elif harm == "fifo":
        shard.unlink()
        os.mkfifo(shard)
    elif harm == "folder":
        (folder / "manifest.json").unlink()
        (folder / "manifest.json").mkdir()
    elif harm == "facts":
        (folder / "run.json").write_text("[]")
    else:
        said = {
            "text-brace": "{",
            "text-list": "[]",
            "text-null": "null",
            "text-number": "1" * 5000,
            "text-deep": "[" * 100_000,
            "text-bytes": "\x00",
            "text-empty": "{}",
            "text-entry": json.dumps({name: 7 for name in manifest}),
            "text-fields": json.dumps({name: {"bytes": 1} for name in manifest}),
            "text-facts-only": json.dumps({"run.json": manifest["run.json"]}),
            "text-elsewhere": json.dumps({**manifest, "../../other": {"bytes": 3, "sha256": ""}}),
            "text-absolute": json.dumps({**manifest, "/etc/hostname": {"bytes": 3, "sha256": ""}}),
            "text-other-step": None,
        }[harm]
        if said is None:
            (folder / "run.json").write_text('{"step": 1}')
            manifest["run.json"] = {
                "bytes": 11, "sha256": hashlib.sha256(b'{"step": 1}').hexdigest(),
            }  # fmt: skip
            said = json.dumps(manifest)
        (folder / "manifest.json").write_text(said)


HARMS = [
    "cut", "flip", "lose", "fifo", "folder", "facts", "text-brace", "text-list", "text-null", "text-number",
    "text-deep", "text-bytes", "text-empty", "text-entry", "text-fields", "text-facts-only", "text-elsewhere",
    "text-absolute", "text-other-step",
]  # fmt: skip


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_checkpoint_is_told_of_and_the_one_before_it_used(tmp_path: Path, harm: str) -> None:
    checkpoints, told = written(tmp_path, 1, 2), list[str]()
    _damage(checkpoints.path(2), harm)
    assert checkpoints.latest(told.append) == checkpoints.path(1)
    assert (
        len(told) == 1 and "step-00000002 is damaged" in told[0] and len(told[0]) < 400 + len(str(tmp_path))
    )
    assert fault_of(checkpoints.path(1)) is None
    assert checkpoints.newest() == (2 if harm == "flip" else 1)


def test_a_run_does_not_start_anew_over_damaged_checkpoints(tmp_path: Path) -> None:
    checkpoints = written(tmp_path, 1)
    (checkpoints.path(1) / "manifest.json").unlink()
    with pytest.raises(WeightsError, match="none of the 1 checkpoints"):
        start(tmp_path, 3)


def test_a_draft_is_no_checkpoint(tmp_path: Path) -> None:
    checkpoints = written(tmp_path, 1)
    os.rename(checkpoints.path(1), checkpoints.folder / ".step-00000001.part")
    assert checkpoints.latest() is None
    assert written(tmp_path, 1).latest() == checkpoints.path(1)


def test_a_full_disk_is_one_sentence_and_the_last_checkpoint_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = written(tmp_path, 1)

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("sanakit.training.checkpoint.sync_tree", full)
        with pytest.raises(OutputError, match="step-00000002: No space left on device"):
            checkpoints.save(2, TENSORS, {"step": 2})
        checkpoints.save_behind(2, TENSORS, {"step": 2})
        with pytest.raises(OutputError, match="No space left"):
            checkpoints.finish()
    assert checkpoints.latest() == checkpoints.path(1)
    checkpoints.save(2, TENSORS, {"step": 2})
    assert checkpoints.steps() == [1, 2]


def refused_by_two(folder: Path) -> list[str]:
    """A job of a `Pair`: save where a file stands in the way; what this process says."""
    checkpoints, said = Checkpoints(folder, join_world(torch.device("cpu"), "ddp")), []
    for save in (checkpoints.save, checkpoints.save_behind):
        try:
            save(1, TENSORS, {"step": 1})
            checkpoints.finish()
        except OutputError as error:
            said.append(str(error))
    return said


def test_a_disk_that_refuses_one_process_ends_them_all(tmp_path: Path, pair: Pair) -> None:
    (tmp_path / "checkpoints").touch()
    said = pair(refused_by_two, tmp_path)
    assert said[0] == said[1]
    assert len(said[0]) == 2
    assert all("can't write the checkpoint" in line and line.endswith("Not a directory") for line in said[0])


def test_what_is_written_behind_is_as_it_was_when_asked(tmp_path: Path) -> None:
    checkpoints, live = Checkpoints(tmp_path), torch.zeros(1000)
    checkpoints.save_behind(1, {"a": live}, {"step": 1})
    live.fill_(1)
    checkpoints.finish()
    read = torch.full((1000,), 7.0)
    read_into(checkpoints.path(1), {"a": read})
    assert not read.any()


def test_weights_that_do_not_fit_are_one_sentence(tmp_path: Path) -> None:
    newest = written(tmp_path, 1).path(1)
    with pytest.raises(WeightsError, match=r"does not fit this run: .*"):
        read_into(newest, {"a": torch.empty(3, 3)})
    with pytest.raises(WeightsError, match="does not fit this run"):
        read_into(newest, {"other": torch.empty(1)})


def test_a_run_with_other_settings_or_of_another_format_is_refused(tmp_path: Path) -> None:
    train(start(tmp_path, 2, identity={"model": {"width": 8}}))
    with pytest.raises(ConfigError, match=r"model.width: 8 -> 16"):
        start(tmp_path, 2, identity={"model": {"width": 16}})
    facts = tmp_path / "checkpoints/step-00000002/run.json"
    changed = json.loads(facts.read_text()) | {"format": 9, "sanakit": "7.0"}
    manifest = facts.with_name("manifest.json")
    facts.write_text(json.dumps(changed))
    listed = json.loads(manifest.read_text())
    digest = hashlib.sha256(facts.read_bytes()).hexdigest()
    listed["run.json"] = {"bytes": facts.stat().st_size, "sha256": digest}
    manifest.write_text(json.dumps(listed))
    with pytest.raises(ConfigError, match=r"of format 9, written by sanakit 7.0"):
        start(tmp_path, 2, identity={"model": {"width": 8}})


def test_saving_by_number_does_not_change_the_run(tmp_path: Path) -> None:
    whole = start(tmp_path / "whole", 11)
    train(whole)
    train(start(tmp_path / "parts", 11, save_steps=3), until=8)
    run = start(tmp_path / "parts", 11, save_steps=3)
    assert run.step == 6
    train(run)
    assert same(whole, run)
    assert run.checkpoints.steps() == [9, 11]


def test_a_step_that_is_written_again_is_there_at_every_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a run that keeps one: it was removed before its successor had its name."""
    checkpoints, real = written(tmp_path, 3, keep=1), shutil.rmtree

    def watched(path: Path, **options: bool) -> None:
        assert checkpoints.latest() in (checkpoints.path(3), checkpoints.path(4))
        real(path, **options)

    monkeypatch.setattr(shutil, "rmtree", watched)
    checkpoints.save(3, TENSORS, {"step": 3, "again": True})
    assert read_facts(checkpoints.path(3))["again"] is True
    checkpoints.save(4, TENSORS, {"step": 4})
    assert checkpoints.steps() == [4]
    assert [path.name for path in checkpoints.folder.iterdir()] == ["step-00000004"]


def test_a_later_one_that_was_passed_over_as_damaged_costs_no_earlier_one(tmp_path: Path) -> None:
    checkpoints = written(tmp_path, 4, 9, keep=2)
    (checkpoints.path(9) / "manifest.json").write_text("{")
    again = written(tmp_path, 5, keep=1)
    assert again.steps() == [5, 9]
    assert again.latest() == again.path(5)


def test_what_failed_keeps_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = written(tmp_path, 1)

    def full(*given: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sanakit.training.checkpoint.sync_tree", full)
    for save in (checkpoints.save, checkpoints.save_behind):
        with pytest.raises(OutputError, match="No space left on device"):
            save(2, TENSORS, {"step": 2})
            checkpoints.finish()
        assert [path.name for path in checkpoints.folder.iterdir()] == ["step-00000001"]
