"""`sanakit train` as a command: the plan, a run and its figures, Ctrl-C and going on, bad input in one sentence."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from sanakit.cli import app
from sanakit.training import read_journal
from tests.cli.running import hear_interrupts
from tests.training.sets import values


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(values(folder / "run", **changes)))
    return path


def test_the_plan_is_told_and_nothing_is_written(tmp_path: Path) -> None:
    result = run("train", write(tmp_path), "--plan", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert "12 pictures, 4 held out" in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_run_tells_its_steps_and_where_the_model_is(tmp_path: Path) -> None:
    result = run("train", write(tmp_path), "--device", "cpu", "--set", "report=3")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert [line.split()[3] for line in lines if "loss" in line] == ["3/6", "6/6"]
    assert lines[-1].endswith(f"sanakit generate --model {tmp_path / 'run/model'} PROMPT")
    again = run("train", write(tmp_path), "--device", "cpu")
    assert (again.exit_code, again.stdout) == (2, "")
    assert "holds a run at step 6: add --resume to go on" in again.stderr


def test_ctrl_c_saves_and_the_same_command_goes_on(tmp_path: Path) -> None:
    config = write(tmp_path, phases=[{"steps": 100_000, "size": 64}])
    command = [sys.executable, "-u", "-m", "sanakit.cli", "train", str(config), "--device", "cpu"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
        preexec_fn=hear_interrupts,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if " step 2/" in line:
                process.send_signal(signal.SIGINT)
                break
        _, told = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "stopped and saved; the same command with --resume goes on" in told
    saved = max((tmp_path / "run/checkpoints").glob("step-*"))
    step = int(saved.name.removeprefix("step-"))
    result = run("train", config, "--resume", "--device", "cpu", "--set", f"phases[0].steps={step + 2}")
    assert f" step {step + 1}/{step + 2} " in result.stdout.splitlines()[0]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["--set", "optimiser.lr=1"], "unknown key optimiser; did you mean optimizer?"),
        (["--set", "batch=x"], "batch is 'x'"),
        (["--set", "data.path=/nowhere"], "nothing at /nowhere"),
        (["--set", "base=/nowhere"], "no model '/nowhere'"),
        (["--set", "parallel=ddp"], "start it by torchrun"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path: Path, changes: list[str], told: str) -> None:
    result = run("train", write(tmp_path), "--device", "cpu", *changes)
    assert result.exit_code == 2
    assert told in result.stderr and "Traceback" not in result.stderr


def test_a_config_that_is_not_there(tmp_path: Path) -> None:
    result = run("train", tmp_path / "none.yaml")
    assert result.exit_code == 2 and "can't be read: No such file" in result.stderr


def on_two(config: Path) -> str:
    """What two processes print of a run."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    done = subprocess.run(
        [*torchrun, "-m", "sanakit.cli", "train", str(config), "--device", "cpu"],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def losses(folder: Path) -> list[float]:
    return [entry["loss"] for entry in read_journal(folder).values()]


def test_two_processes_make_the_run_of_one(tmp_path: Path) -> None:
    settings = {"preview": {"every": 3, "steps": 1, "prompts": ["a red cube"]}, "validate": 3}
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    assert run("train", write(tmp_path / "one", **settings), "--device", "cpu").exit_code == 0
    told = on_two(write(tmp_path / "two", **settings))
    assert losses(tmp_path / "two/run") == pytest.approx(losses(tmp_path / "one/run"), abs=1e-5)
    measured = [
        read_journal(tmp_path / name / "run", kind="validation")[6]["loss"] for name in ("one", "two")
    ]
    assert measured[1] == pytest.approx(measured[0], abs=1e-5)
    assert len(list((tmp_path / "two/run/previews").glob("*.png"))) == 3  # of steps 0, 3 and 6
    assert (tmp_path / "two/run/model/model_index.json").is_file()
    assert told.count("step 6/6") == 1  # the first process alone tells
