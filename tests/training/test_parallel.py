"""One process, two that hold the model whole, two that share it: the same run; each goes on from the others' state."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from sanakit.base import ConfigError
from sanakit.training import World, join_world
from tests.training.together import trained

ROOT = Path(__file__).resolve().parents[2]


def on_two(*jobs: tuple[Path, str, int, int]) -> list[dict[str, Any]]:
    """What two processes saw of each job (folder, mode, steps, accumulate)."""
    names = [":".join(map(str, job)) for job in jobs]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    done = subprocess.run(
        [*torchrun, str(ROOT / "tests/training/together.py"), *names],
        capture_output=True, timeout=300, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "src"))), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(job[0] / f"seen-{job[2]}.pt", weights_only=True) for job in jobs]


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert other["step"] == one["step"]
    assert other["losses"] == pytest.approx(one["losses"], abs=1e-5)
    for name, weight in one["weights"].items():
        torch.testing.assert_close(other["weights"][name], weight, atol=1e-5, rtol=1e-5)


def test_two_processes_make_the_run_of_one_and_each_goes_on_from_the_others_state(tmp_path: Path) -> None:
    one = trained(tmp_path / "one", 50, 1)
    assert len(one["losses"]) == 50
    parts = [trained(tmp_path / "parts", steps, 1) for steps in (20, 30, 50)]
    trained(tmp_path / "ours", 20, 1)
    theirs = tmp_path / "theirs"
    ddp, fsdp, first = on_two(
        (tmp_path / "ddp", "ddp", 50, 1), (tmp_path / "fsdp", "fsdp", 50, 2), (theirs, "fsdp", 20, 1)
    )
    assert_same(one, ddp)
    assert_same(one, fsdp)
    assert_same(parts[0], first)
    assert_same(parts[1], trained(theirs, 30, 1))
    ours, shared = on_two((tmp_path / "ours", "ddp", 30, 1), (theirs, "fsdp", 50, 1))
    assert_same(parts[1], ours)
    assert_same(parts[2], shared)


def test_gradients_of_parts_make_the_gradient_of_the_whole(tmp_path: Path) -> None:
    assert_same(trained(tmp_path / "one", 50, 1), trained(tmp_path / "parts", 50, 2))


def test_a_mode_that_does_not_fit_the_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert join_world(cpu) == World()
    with pytest.raises(ConfigError, match="this is one process; start it by torchrun"):
        join_world(cpu, "fsdp")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="torchrun started 2 processes"):
        join_world(cpu, "single")
