"""Threads of a CPU: small work gets two, explicit settings win, and torch's own number comes back."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from sanakit.base import RequestError
from sanakit.base import threads as module
from sanakit.base.threads import (
    SETTINGS,
    SMALL,
    check_threads,
    choose_threads,
    core_quota,
    on_threads,
    use_threads,
)
from sanakit.base.waiting import SPINS, USERS, spin_briefly


@pytest.fixture(autouse=True)
def three(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """torch on three threads, and nobody has said anything."""
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(module, "core_quota", lambda: None)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_small_work_gets_two_threads_and_other_work_all(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, count in ((1, 1), (2, 2), (16, 2)):
        monkeypatch.setattr(module, "available_cores", partial(int, cores))
        assert choose_threads(SMALL / 2).count == count
    assert choose_threads(SMALL * 2).count == 3


@pytest.mark.parametrize("operations", [1.0, 1e12])
def test_what_was_asked_wins(operations: float, monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_threads(operations, asked=7).count == 7
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert choose_threads(operations).count == 3, "torch has read the variable: its number is what was asked"
    assert choose_threads(operations, asked=5).count == 5


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_the_environment_win(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "3")
    found = choose_threads(1.0)
    assert found.count == 3 and name in found.reason


def test_the_choice_does_not_ask_for_the_load(monkeypatch: pytest.MonkeyPatch) -> None:
    def busy() -> tuple[float, float, float]:
        raise AssertionError("the load of the moment decides about bits")

    monkeypatch.setattr(os, "getloadavg", busy)
    assert choose_threads(SMALL * 2).count == 3


def test_a_container_with_fewer_cores_has_fewer_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "core_quota", lambda: 2)
    assert choose_threads(SMALL * 2).count == 2
    monkeypatch.setattr(module, "core_quota", lambda: 64)
    assert choose_threads(SMALL * 2).count == 3


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "20000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "nonsense"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_quotas_of_containers(files: dict[str, str], cores: int | None, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="ascii")
    assert core_quota(tmp_path) == cores


def test_a_program_that_has_no_torch_yet_waits_briefly_too() -> None:
    told = "import os, sanakit; sanakit.ImageRequest; print(os.environ.get('GOMP_SPINCOUNT'))"
    clean = {name: value for name, value in os.environ.items() if name not in USERS}
    for first, wanted in (("", str(SPINS)), ("import torch, ", "None")):
        done = subprocess.run(
            [sys.executable, "-c", told.replace("import ", "import " + first.removeprefix("import "), 1)],
            env=clean, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout.strip() == wanted


def test_the_callers_number_comes_back() -> None:
    with use_threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 3
    with pytest.raises(ValueError, match="inside"), use_threads(2):
        raise ValueError("inside")
    assert torch.get_num_threads() == 3


def test_between_items_the_caller_has_its_own_number() -> None:
    seen: list[int] = []
    ended: list[bool] = []

    def work() -> Iterator[int]:
        try:
            for number in range(3):
                seen.append(torch.get_num_threads())
                yield number
        finally:
            ended.append(True)

    assert [(item, torch.get_num_threads()) for item in on_threads(2, work())] == [(0, 3), (1, 3), (2, 3)]
    assert seen == [2, 2, 2]
    walk = on_threads(2, work())
    next(walk)
    walk.close()
    assert ended == [True, True], "a walk that is left ends the work"
    assert torch.get_num_threads() == 3


def test_fewer_than_one_is_refused() -> None:
    assert check_threads(None) is None and check_threads(2) == 2
    with pytest.raises(RequestError, match="threads must be 1 or more, not 0"):
        check_threads(0)


def test_spinning_is_set_unless_the_user_has() -> None:
    environment: dict[str, str] = {}
    assert spin_briefly(environment) and environment == {"GOMP_SPINCOUNT": str(SPINS)}
    for name in USERS:
        environment = {name: "as the user wants"}
        assert not spin_briefly(environment) and environment == {name: "as the user wants"}


def test_the_command_sets_it_before_torch_is_there() -> None:
    """The runtime reads its settings once, while torch is imported."""
    code = """
import importlib, os, sys
module = importlib.import_module("sanakit.cli.app")
assert "torch" not in sys.modules
module.app = lambda **_: print(os.environ.get("GOMP_SPINCOUNT"), "torch" in sys.modules)
module.main()
"""
    environment = {name: value for name, value in os.environ.items() if name not in USERS}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(SPINS), "False"]
