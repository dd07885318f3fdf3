"""Two processes train a text encoder, and adapters, as one does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sanakit.weights import LORA_FILE
from tests.training.pair import Pair, losses_of
from tests.training.sets import values
from tests.training.test_joint import changes, strangers
from tests.training.test_lora_task import PRIOR, lora

__all__ = ["strangers"]  # a fixture


def test_two_processes_train_as_one_does(strangers: Path, tmp_path: Path, pair: Pair) -> None:
    joint, adapters = changes(strangers), lora(lora={"rank": 2, "prior": PRIOR}, batch=2)
    # ddp is the same code as fsdp on another mesh: test_parallel.py. Adapters are whole on every process.
    for name, run, mode in (("joint", joint, "fsdp"), ("lora", adapters, "ddp")):
        losses = losses_of(values(tmp_path / name, **run))
        found, _ = pair(losses_of, values(tmp_path / f"{name}-two", **run, parallel=mode))
        assert found == pytest.approx(losses, abs=1e-4), name
    files = [
        f"model/{name}.safetensors" for name in ("transformer/diffusion_pytorch_model", "text_encoder/model")
    ]
    pairs = [(f"joint/{name}", f"joint-two/{name}") for name in files]
    for one, two in (*pairs, (f"lora/lora/{LORA_FILE}", f"lora-two/lora/{LORA_FILE}")):
        wanted, found = load_file(tmp_path / one), load_file(tmp_path / two)
        assert wanted.keys() == found.keys()
        for key, weight in wanted.items():
            torch.testing.assert_close(found[key], weight, atol=2e-3, rtol=2e-2)
