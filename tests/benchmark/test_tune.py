"""`python -m bench.tune`: the fastest right candidate is kept, by a timer that is none."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="Triton has no wheel for this system, and its kernels never run here")

from triton.runtime.errors import OutOfResources

from bench import tune
from sanakit.kernels import tuning


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = tmp_path / "tuning.json"
    monkeypatch.setattr(tuning, "USER", path)
    tuning.forget()
    yield path
    tuning.forget()


def warps() -> int:
    return tuning.launch("modulated_norm", 64, torch.device("cpu"))["warps"]


def job(run: Callable[[], torch.Tensor]) -> tune.Job:
    return tune.Job(kernel="modulated_norm", size=64, run=run)


def test_the_fastest_is_taken(table: Path) -> None:
    times = {2: 5.0, 4: 4.0, 8: 1.0, 16: 3.0}
    found = tune.tune(job(lambda: torch.ones(3)), lambda work: times[warps()])
    assert found == ({"warps": 8}, 1.0, 4.0)


def test_where_nothing_is_faster_nothing_changes(table: Path) -> None:
    assert tune.tune(job(lambda: torch.ones(3)), lambda work: 1.0) == (None, 1.0, 1.0)


def test_what_is_wrong_or_does_not_fit_is_not_taken(table: Path) -> None:
    def run() -> torch.Tensor:
        if warps() == 16:
            raise OutOfResources(300, 200, "shared memory")
        return torch.full((3,), 2.0 if warps() == 8 else 1.0)

    times = {2: 3.0, 4: 4.0, 8: 1.0, 16: 0.5}
    assert tune.tune(job(run), lambda work: times[warps()]) == ({"warps": 2}, 3.0, 4.0)


def test_every_kernel_of_the_table_is_tuned_by_its_own_parameters() -> None:
    shipped = json.loads(tuning.SHIPPED.read_text(encoding="utf-8"))
    assert set(tune.CANDIDATES) == set(shipped)
    for kernel, chips in shipped.items():
        for sizes in chips.values():
            assert all(set(parameters) == set(tune.CANDIDATES[kernel]) for parameters in sizes.values())


def test_it_walks_through_every_kernel_and_keeps_what_it_found(
    table: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = {name: {key: values[:1] for key, values in of.items()} for name, of in tune.CANDIDATES.items()}
    monkeypatch.setattr(tune, "CANDIDATES", first)
    clock = iter(range(10_000, 0, -1))
    monkeypatch.setattr(tune, "seconds", lambda work, device: float(next(clock)))
    monkeypatch.setattr(sys, "argv", ["bench.tune", "--device", "cpu", "--small"])
    monkeypatch.setattr(tuning, "chip", lambda device: "sm_90")
    tune.main()
    assert f"kept in {table}" in capsys.readouterr().out
    kept = json.loads(table.read_text(encoding="utf-8"))
    assert set(kept) == set(first)
    assert kept["modulated_norm"] == {"sm_90": {"16": {"warps": 2}}}


def test_the_interpreter_keeps_nothing(
    table: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tune, "jobs", lambda device, small: [job(lambda: torch.ones(3))])
    monkeypatch.setattr(sys, "argv", ["bench.tune", "--device", "cpu", "--small"])
    tune.main()
    assert "nothing is kept" in capsys.readouterr().out and not table.exists()


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bench.tune"])
    with pytest.raises(SystemExit, match="there is none here"):
        tune.main()


def test_a_broken_table_is_not_written_over(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table.write_text("{", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["bench.tune", "--device", "cpu", "--small"])
    with pytest.raises(SystemExit, match="delete the file"):
        tune.main()
    assert table.read_text(encoding="utf-8") == "{"
