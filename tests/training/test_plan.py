"""The plan tells what will happen: epochs, sizes, schedule, what of the cache is there, disk; and what looks wrong."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from sanakit.cli import app
from sanakit.training.session import Session
from sanakit.training.tasks import latent_cache
from sanakit.training.tasks.transformer import TransformerTask
from tests.training.sets import COUNT, cache, config, pictures, values


def told(folder: Path, **changes: Any) -> dict[str, str]:
    """The lines of a plan by their names."""
    lines = Session(config(folder, **changes), device="cpu").plan.lines()
    return {line[:10].strip(): line[11:] for line in lines}


def filled(tmp_path: Path) -> Path:
    """A cache of its own that holds the whole set."""
    session = Session(config(tmp_path / "first"), device="cpu")
    list(session.task.prepare())
    return Path(shutil.copytree(cache(), tmp_path / "cache"))


def test_epochs_sizes_schedule_and_disk_are_told(tmp_path: Path) -> None:
    lines = told(tmp_path, schedule={"cooldown": 0.5}, phases=[{"steps": 30, "size": 64}])
    assert lines["epochs"] == "15.0 of 2 steps (8 of 64x64)"
    assert lines["schedule"].startswith("warm-up over 3 steps, a fall to 0 over the last 50%; 7")
    assert "checkpoints of" in lines["disk"] and "2 stay" in lines["disk"] and " free" in lines["disk"]
    assert " GB" in lines["memory"] and "program" in lines["memory"]
    assert "tokens a caption" in lines["on"]
    assert "warning" not in lines or "held" in lines["warning"]


def test_time_and_room_of_a_cache_that_must_be_made_are_told(tmp_path: Path) -> None:
    data = {"path": str(pictures()), "square": True}
    lines = told(tmp_path, data=data)
    assert lines["cache"].startswith(f"0 of {COUNT} latents are there; the others are made first, about ")
    assert " min and 0." in lines["cache"] and lines["cache"].endswith(" MB")


@pytest.mark.parametrize("lost", ["pictures-*.json", "*.json"])
def test_latents_that_are_there_are_counted_whoever_made_them(tmp_path: Path, lost: str) -> None:
    """Also those of a copy of the set, of a run that was killed before its notes, and beside another text encoder's."""
    there = filled(tmp_path)
    for path in there.glob(lost):
        path.unlink()
    copy = shutil.copytree(pictures(), tmp_path / "copy")
    for path in (pictures(), copy):
        data = {"path": str(path), "square": True, "held": 4, "cache": str(there)}
        assert told(tmp_path / "run", data=data)["cache"] == f"{COUNT} of {COUNT} latents are there"
    (copy / "000001.png").write_bytes((copy / "000002.png").read_bytes() + b"x")
    data = {"path": str(copy), "square": True, "held": 4, "cache": str(there)}
    assert told(tmp_path / "run", data=data)["cache"].startswith(f"{COUNT - 1} of {COUNT}")


def test_pictures_that_are_not_looked_up_in_time_are_said_to_be_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = filled(tmp_path)
    copy = shutil.copytree(pictures(), tmp_path / "copy")
    ticks = iter(range(10**6))
    monkeypatch.setattr(latent_cache.time, "monotonic", lambda: float(next(ticks)))
    monkeypatch.setattr(latent_cache, "_HASH_SECONDS", 5.5)
    data = {"path": str(copy), "square": True, "held": 4, "cache": str(there)}
    task = Session(config(tmp_path / "run", data=data), device="cpu").task
    assert isinstance(task, TransformerTask)
    missing = task.cache.missing()
    assert (len(missing.buckets), missing.unknown) == (COUNT - 5, COUNT - 5)


def test_the_command_tells_keys_and_is_strict_when_asked(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump(values(tmp_path / "run", schedule={"warmup": 2000})))
    runner = CliRunner()
    keys = runner.invoke(app, ["train", "--keys"])
    assert keys.exit_code == 0 and "optimizer.lr" in keys.stdout and "default 0.0001" in keys.stdout
    plain = runner.invoke(app, ["train", str(file), "--plan", "--device", "cpu"])
    assert plain.exit_code == 0 and "warning    schedule.warmup is 2000" in plain.stderr
    strict = runner.invoke(app, ["train", str(file), "--strict", "--device", "cpu"])
    assert strict.exit_code == 2 and "--strict: schedule.warmup is 2000" in strict.stderr
    assert not (tmp_path / "run").exists()
