"""`python -m bench.gpu` from end to end through Triton's interpreter, at tiny shapes: it checks first, then times."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="Triton has no wheel for this system, and its kernels never run here")

from bench import gpu


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    told = tmp_path / "rows.json"
    monkeypatch.setattr(sys, "argv", ["bench.gpu", "--device", "cpu", "--small", "--json", str(told)])
    return told


def test_it_walks_through_every_kernel(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gpu.main()
    told = capsys.readouterr().out
    assert "10 kernels agree with their references" in told
    assert "training toybox, batch 2: " in told
    rows = json.loads(small.read_text(encoding="utf-8"))
    assert [(row["kernel"].split(",")[0], row["way"]) for row in rows] == [
        ("linear attention", "forward"), ("linear attention", "backward"),
        ("qk-norm and attention", "forward"), ("qk-norm and attention", "backward"),
        ("Mix-FFN", "forward"), ("Mix-FFN", "backward"),
        ("modulated norm", "forward"), ("modulated norm", "backward"),
        ("sum and modulated norm", "forward"), ("sum and modulated norm", "backward"),
        ("int8 product", "forward"), ("norm that rounds and int8 product", "forward"),
        ("residual norm that is trained", "forward"), ("residual norm that is trained", "backward"),
        ("residual norm", "forward"), ("upsampling", "forward"),
    ]  # fmt: skip
    assert all(0 < row["error"] < gpu.TOLERANCE for row in rows)


def test_a_check_times_nothing(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--check"])
    gpu.main()
    assert capsys.readouterr().out == "10 kernels agree with their references\n" and not small.exists()


def test_a_wrong_kernel_is_not_timed(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = gpu.rms.rms_norm
    monkeypatch.setattr(gpu.rms, "rms_norm", lambda *a: torch.roll(right(*a), 1, dims=0) + 0.1)
    with pytest.raises(SystemExit, match="residual norm, 16 x 8.*differs from the reference"):
        gpu.main()
    assert "agree" not in capsys.readouterr().out


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bench.gpu"])
    with pytest.raises(SystemExit, match="there is none here"):
        gpu.main()
