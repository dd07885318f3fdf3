"""The memory that a plan tells is what a step takes: tensors are counted while it is taken."""

from __future__ import annotations

import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sanakit.training import StepReport
from sanakit.training.cost import Memory, program_bytes, step_memory
from sanakit.training.run_state import run_tensors
from sanakit.training.session import Session
from tests.training.sets import config, pictures

SHAPE = {"start": "scratch", "changes": {"depth": 2, "width": 256, "heads": 8, "cross_heads": 8}}


class Live(TorchDispatchMode):
    """Counts the bytes of all tensors that are made while it is on and still there; `most` at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self.see(tensor.untyped_storage())
        return made

    def see(self, storage: torch.UntypedStorage) -> None:
        name, size = storage._cdata, storage.nbytes()
        if name not in self.known:
            self.known.add(name)
            self.now += size
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self.gone, name, size)

    def gone(self, name: int, size: int) -> None:
        self.known.discard(name)
        self.now -= size


def taken(session: Session) -> tuple[int, int]:
    """Bytes of the tensors that lie there between steps, and the most that a step takes beside them."""
    list(session.task.prepare())
    objective = session.task.objective()
    run = session._trainer(objective)
    turns = len(run.players)

    def steps(count: int) -> None:
        for _ in range(count):
            while not isinstance(next(events), StepReport):
                pass

    with session.task.batches(objective) as batches:
        events = run.train(objective.losses, batches)
        steps(turns)  # the first step of each player makes its optimiser's state
        live = Live()
        lying = run_tensors(run.model, run.players, run.averages).values()
        live.known |= {tensor.untyped_storage()._cdata for tensor in lying}
        with live:
            steps(turns)
        events.close()
    return sum(tensor.nbytes for tensor in lying), live.most


@pytest.mark.parametrize(
    "changes",
    [
        {"batch": 8, "dtype": "fp32"},
        {"batch": 8, "dtype": "bf16"},
        {"batch": 8, "accumulate": 2, "optimizer": {"name": "came"}},
        {"task": "autoencoder", "model": {}, "batch": 4, "phases": [{"steps": 3, "size": 64}],
         "autoencoder": {"start": "scratch"}},
    ],
)  # fmt: skip
def test_a_step_takes_what_the_plan_says(tmp_path: Path, changes: dict[str, Any]) -> None:
    data = {"path": str(pictures()), "square": True, "held": 4}  # a cache of its own, for the dtype
    settings = {"model": SHAPE, "data": data, "phases": [{"steps": 3, "size": 64}], **changes}
    session = Session(config(tmp_path, **settings), device="cpu")
    told = session.plan.memory
    lying, step = taken(session)
    assert told.network == pytest.approx(lying, rel=0.05)
    assert told.network + told.gradients + told.activations + told.cast == pytest.approx(
        lying + step, rel=0.3
    )


def test_the_largest_of_what_is_not_at_work_at_once_counts() -> None:
    made = step_memory(100, 60, "adamw", activations=1000, half=True)
    assert (made.weights, made.gradients, made.average, made.optimizer) == (400, 240, 400, 480)
    assert (made.activations, made.cast, made.network) == (500, 200, 1280)
    assert step_memory(100, 100, "adamw", activations=1000, half=False, share=4).weights == 100
    assert Memory(program=10, weights=5, encoders=100).peak == 110
    assert Memory(program=10, weights=5, drawing=100, activations=3).peak == 115
    assert Memory(program=10, weights=500, encoders=100, checkpoint=500).peak == 1010
    assert "encoders 0.10" in Memory(encoders=10**8).words
    assert program_bytes() > 50 * 2**20


def test_what_does_not_fit_is_a_warning(tmp_path: Path) -> None:
    plan = Session(config(tmp_path, schedule={"warmup": 0}, validate=3), device="cpu").plan
    assert plan.warnings == []
    (memory,) = replace(plan, free=1000).warnings
    assert "GB are needed and 0.0 GB are free: lower batch, raise accumulate, or set recompute=1" in memory
    (disk,) = replace(plan, disk=1000).warnings
    assert "will be written" in disk and "lower saving.keep" in disk
    (past,) = replace(plan, begins=9).warnings
    assert past == "the run is at step 9 and has 6 steps: nothing is left to train"
    assert replace(plan, begins=9).eta == 0


@pytest.mark.parametrize("keep", [1, 3])
def test_the_disk_that_is_told_is_what_is_written(tmp_path: Path, keep: int) -> None:
    saving = {"steps": 1, "keep": keep}
    session = Session(config(tmp_path, saving=saving), device="cpu")
    plan = session.plan
    list(session.events())
    sizes = [
        sum(file.stat().st_size for file in checkpoint.iterdir())
        for checkpoint in (tmp_path / "checkpoints").iterdir()
    ]
    assert len(sizes) == keep
    assert max(sizes) == pytest.approx(plan.checkpoint_bytes, rel=0.25)
    assert plan.disk_bytes >= sum(sizes)
