"""What lesser CPUs take of the table: right numbers, and no reference loop in disguise.

Instructions are taken away from this one; `make chips` runs the fast part of the suite the same way.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.kernels import on_chip

# Threads that wait without spinning, as other tests run beside these.
_PATIENT = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
CHIPS = {
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_NUM_THREADS": "1"},
    "sse, 2 threads": {
        "ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "OMP_NUM_THREADS": "2", **_PATIENT,
    },
    "8 threads": {"OMP_NUM_THREADS": "8", **_PATIENT},
}  # fmt: skip
_RAN = re.compile(r"onednn_verbose,(?:v\d+,)?primitive,exec,cpu,(\w+),([^,]+),")


def on(name: str, path: Path) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """What `on_chip` found on a chip, and the names of what oneDNN ran."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.kernels.on_chip", str(path)],
        cwd=Path(__file__).parents[2], env=_environment() | CHIPS[name],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return torch.load(path, weights_only=True), _RAN.findall(done.stdout)


def _environment() -> dict[str, str]:
    taken = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    return {name: value for name, value in os.environ.items() if name not in taken}


@pytest.fixture(scope="module")
def here() -> dict[str, torch.Tensor]:
    """The outputs in this process, as the machine is."""
    torch.manual_seed(0)
    return {**on_chip.run_samples(), **on_chip.networks()}


@pytest.mark.parametrize("name", CHIPS)
def test_a_lesser_chip_gives_the_same_numbers_every_time_and_by_no_reference_loop(
    here: dict[str, torch.Tensor], tmp_path: Path, name: str
) -> None:
    found, ran = on(name, tmp_path / "found.pt")
    assert found["threads"] == int(CHIPS[name]["OMP_NUM_THREADS"])
    assert found["outputs"].keys() == here.keys()
    for key, output in found["outputs"].items():
        bound = 2e-2 if "bfloat16" in key or "int8" in key else 1e-5
        error = torch.linalg.norm(output - here[key]) / torch.linalg.norm(here[key])
        assert error < bound, f"{key} by {found['rows']}"
    assert found["same"], "not the same to the bit when it is run again"
    # By oneDNN's own names of what it ran for the samples.
    products = [(kind, how) for kind, how in ran if kind in ("matmul", "inner_product", "convolution")]
    assert products or "onednn" not in found["rows"].values()
    assert [how for _, how in products if how.startswith("ref")] == []
