"""Triton kernels compile for a GPU that is not here, keep values in registers, and fit the chip's shared memory.

For the one with the least of it; `python -m bench.ahead` compiles for the others, too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton has no wheel for this system, and its compiler never runs here")

from bench import ahead

CHIP, SHARED = 80, 163 * 1024
"""An A100, and the bytes of shared memory that one program may have there; later chips have 227 KiB."""


def test_all_kernels_compile_ahead_within_their_budgets(tmp_path: Path) -> None:
    # A process of its own: in this one, Triton interprets.
    told = tmp_path / "ahead.json"
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "bench.ahead", "--chips", str(CHIP), "--json", str(told)],
        env={**environment, "TRITON_CACHE_DIR": str(tmp_path)}, cwd=Path(__file__).parents[2],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    rows = json.loads(told.read_text(encoding="utf-8"))
    assert {row["kernel"] for row in rows} == set(ahead.BUDGET)
    assert max(row["shared"] for row in rows) <= SHARED
    for row in rows:
        registers, spills = ahead.BUDGET[row["kernel"]]
        assert 0 < row["registers"] <= registers and 0 <= row["spills"] <= spills, row
