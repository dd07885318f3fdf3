"""One process, two that hold the model whole, two that share it: the same run; each goes on from the others' state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sanakit.base import ConfigError
from sanakit.training import World, join_world
from tests.training.pair import Pair
from tests.training.together import trained, trained_by_two


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert other["step"] == one["step"]
    assert other["losses"] == pytest.approx(one["losses"], abs=1e-5)
    for name, weight in one["weights"].items():
        torch.testing.assert_close(other["weights"][name], weight, atol=1e-5, rtol=1e-5)


def test_two_processes_make_the_run_of_one_and_each_goes_on_from_the_others_state(
    tmp_path: Path, pair: Pair
) -> None:
    def on_two(name: str, mode: str, steps: int, accumulate: int) -> dict[str, Any]:
        pair(trained_by_two, tmp_path / name, mode, steps, accumulate)
        return torch.load(tmp_path / name / f"seen-{steps}.pt", weights_only=True)

    one = trained(tmp_path / "one", 24, 1)
    assert len(one["losses"]) == 24
    parts = [trained(tmp_path / "parts", steps, 1) for steps in (8, 16, 24)]
    trained(tmp_path / "ours", 8, 1)
    assert_same(one, on_two("ddp", "ddp", 24, 1))
    assert_same(one, on_two("fsdp", "fsdp", 24, 2))
    assert_same(parts[0], on_two("theirs", "fsdp", 8, 1))
    assert_same(parts[1], trained(tmp_path / "theirs", 16, 1))
    assert_same(parts[1], on_two("ours", "ddp", 16, 1))
    assert_same(parts[2], on_two("theirs", "fsdp", 24, 1))


def test_gradients_of_parts_make_the_gradient_of_the_whole(tmp_path: Path) -> None:
    assert_same(trained(tmp_path / "one", 24, 1), trained(tmp_path / "parts", 24, 2))


def test_a_mode_that_does_not_fit_the_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert join_world(cpu) == World()
    with pytest.raises(ConfigError, match="this is one process; start it by torchrun"):
        join_world(cpu, "fsdp")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="torchrun started 2 processes"):
        join_world(cpu, "single")
