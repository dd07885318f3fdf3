"""Steps that would do harm are skipped and kept for a look; after several the run goes back."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sanakit.base import NumericsError
from sanakit.training import GuardConfig
from sanakit.training.events import Event
from sanakit.training.guard import Guard
from tests.training.small import DATA, batches_of, loss_of, same, start, train


def poisoned(folder: Path, bad: set[int], steps: int, **settings: Any) -> tuple[list[Event], Any]:
    """A run in which the loss of some steps is NaN, as from a bad batch."""
    run = start(folder, steps, **settings)
    clean = loss_of(run)

    def loss(batch: Any, generator: torch.Generator) -> dict[str, Tensor]:
        parts = clean(batch, generator)
        return {"loss": parts["loss"] * math.nan} if run.step in bad else parts

    return list(run.train(loss, batches_of(run))), run


def test_a_spike_is_judged_by_what_was_usual() -> None:
    guard = Guard(GuardConfig(spike=10))
    assert guard.judge(0, 1.0, {"model": 500.0}) == "keep"  # nothing is usual yet
    for step in range(1, 30):
        assert guard.judge(step, 1.0, {"model": 1.0 + step / 100}) == "keep"
    assert guard.judge(30, 1.0, {"model": 50.0}) == "skip"
    assert guard.fault(1.0, {"model": 50.0}) == "the gradient's norm is 50, 43 times what is usual"
    assert guard.judge(31, 1.0, {"model": 5.0}) == "keep"
    assert guard.skipped == 1
    assert guard.fault(1.0, {"model": 1.0, "critic": math.nan}) == "the norm of the critic's gradient is nan"
    assert Guard(GuardConfig()).judge(0, 1.0, {"model": 1e30}) == "keep"


def test_what_a_guard_remembers_survives_a_checkpoint() -> None:
    guard = Guard(GuardConfig(spike=10, patience=2))
    for step in range(25):
        guard.judge(step, 1.0, {"model": 1.0})
    guard.judge(25, math.inf, {"model": 1.0})
    again = Guard(guard.config)
    again.restore(guard.state())
    assert again.judge(26, 1.0, {"model": 20.0}) == guard.judge(26, 1.0, {"model": 20.0}) == "back"
    assert again.state() == guard.state()
    guard.strikes.clear()
    assert guard.judge(27, 1.0, {"model": 1.0, "critic": 9.0}) == "keep"
    again.restore(guard.state())
    assert again.state()["other_norms"] == {"critic": [9.0]}


def test_a_bad_step_changes_nothing_and_its_batch_is_kept(tmp_path: Path) -> None:
    events, run = poisoned(tmp_path, {3}, 6)
    told = [str(event) for event in events if "skipped:" in str(event)]
    assert told == [
        f"step 3: skipped: the loss is nan; the batch is kept in {tmp_path / 'skipped/step-00000003-0.pt'}"
    ]
    kept = torch.load(tmp_path / "skipped/step-00000003-0.pt", weights_only=True)
    assert torch.equal(kept[0][0], batches_of(run)(3)[0])
    assert all(torch.isfinite(p).all() for p in run.model.parameters())


def test_after_several_the_run_goes_back_and_passes_them_by(tmp_path: Path) -> None:
    guard = GuardConfig(patience=2)
    events, run = poisoned(tmp_path, {5, 6}, 9, guard=guard, save_steps=4)
    told = [str(event) for event in events]
    assert "step 7: 2 steps in a row were skipped: back to step 4" in told
    assert told.count("step 5: passed by: it was skipped before") == 1
    assert (run.step, run.guard.avoided) == (9, {5, 6})
    # The same, as if those steps had never been.
    other = start(tmp_path / "other", 9)
    other.guard.avoided = {5, 6}
    train(other)
    assert same(run, other)


def test_a_run_that_goes_back_in_vain_ends_with_a_sentence(tmp_path: Path) -> None:
    guard = GuardConfig(patience=1, rollbacks=2)
    with pytest.raises(
        NumericsError, match="it went back 2 times before; the last good checkpoint is .*step-00000004; lower"
    ):
        poisoned(tmp_path, set(range(5, 99)), 99, guard=guard, save_steps=4)
    with pytest.raises(NumericsError, match="there is no checkpoint"):
        poisoned(tmp_path / "fresh", {0}, 9, guard=guard)
    assert len(DATA) == 16
