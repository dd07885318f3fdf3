"""Triton kernels compile for GPUs that are not here, keep values in registers, and fit the chips' shared memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton has no wheel for this system, and its compiler never runs here")

from bench import ahead

SHARED = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}
"""Bytes of shared memory that one program may have, by chip."""


def test_all_kernels_compile_ahead_within_their_budgets(tmp_path: Path) -> None:
    # A process of its own: in this one, Triton interprets.
    told = tmp_path / "ahead.json"
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "bench.ahead", "--json", str(told)],
        env={**environment, "TRITON_CACHE_DIR": str(tmp_path)}, cwd=Path(__file__).parents[2],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    rows = json.loads(told.read_text(encoding="utf-8"))
    for chip, most in SHARED.items():
        here = [row for row in rows if row["chip"] == chip]
        assert {row["kernel"] for row in here} == set(ahead.BUDGET)
        assert max(row["shared"] for row in here) <= most
        for row in here:
            registers, spills = ahead.BUDGET[row["kernel"]]
            assert 0 < row["registers"] <= registers and 0 <= row["spills"] <= spills, row
