"""Two processes train a text encoder, and adapters, as one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sanakit.training import StepReport
from sanakit.training.session import Session
from sanakit.weights import LORA_FILE
from tests.training.sets import config
from tests.training.test_joint import changes, strangers
from tests.training.test_lora_task import PRIOR, lora

ROOT = Path(__file__).resolve().parents[2]

__all__ = ["strangers"]  # a fixture


def on_two(jobs: dict[Path, dict[str, Any]]) -> None:
    """Run sessions on two processes: folder -> changes."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    script = ROOT / "tests/training/sessions_together.py"
    given = [text for folder, changes in jobs.items() for text in (str(folder), json.dumps(changes))]
    done = subprocess.run(
        [*torchrun, str(script), *given], capture_output=True, timeout=300, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "src"))), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


def alone(folder: Path, changes: dict[str, Any]) -> list[float]:
    """The losses of the same on one."""
    session = Session(config(folder, **changes), device="cpu")
    return [event.losses["loss"] for event in session.events() if isinstance(event, StepReport)]


def test_two_processes_train_as_one_does(strangers: Path, tmp_path: Path) -> None:
    joint, adapters = changes(strangers), lora(lora={"rank": 2, "prior": PRIOR}, batch=2)
    losses = {"joint": alone(tmp_path / "joint", joint), "lora": alone(tmp_path / "lora", adapters)}
    # ddp is the same code as fsdp on another mesh: test_parallel.py. Adapters are whole on every process.
    on_two(
        {
            tmp_path / "joint-two": joint | {"parallel": "fsdp"},
            tmp_path / "lora-two": adapters | {"parallel": "ddp"},
        }
    )
    for name, values in losses.items():
        found = json.loads((tmp_path / f"{name}-two/losses.json").read_text())
        assert found == pytest.approx(values, abs=1e-4), name
    files = [
        f"model/{name}.safetensors" for name in ("transformer/diffusion_pytorch_model", "text_encoder/model")
    ]
    pairs = [(f"joint/{name}", f"joint-two/{name}") for name in files]
    for one, two in (*pairs, (f"lora/lora/{LORA_FILE}", f"lora-two/lora/{LORA_FILE}")):
        wanted, found = load_file(tmp_path / one), load_file(tmp_path / two)
        assert wanted.keys() == found.keys()
        for key, weight in wanted.items():
            torch.testing.assert_close(found[key], weight, atol=2e-3, rtol=2e-2)
