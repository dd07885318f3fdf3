"""What can't be done is refused before anything is written or encoded; what came to nothing is not exported."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sanakit.base import ConfigError, InputError, NumericsError
from sanakit.training import GuardConfig, Trainer
from sanakit.training.config_warnings import config_warnings, rate_shares
from sanakit.training.objectives.flow_matching import FlowMatching
from sanakit.training.session import Session
from sanakit.training.tasks.latents import NoisyBatch
from tests.training.sets import config, pictures
from tests.training.small import batches_of, loss_of, start


def test_a_refused_resume_leaves_the_config_of_the_run(tmp_path: Path) -> None:
    list(Session(config(tmp_path), device="cpu").events())
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for changes in ({"batch": 2}, {"seed": 9}, {"clip": 3.0}, {"batch": 9}, {"tracker": "wandb"}):
        with pytest.raises(InputError):
            list(Session(config(tmp_path, **changes), device="cpu", resume=True).events())
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    list(Session(config(tmp_path, report=3), device="cpu", resume=True).events())
    assert "report: 3" in (tmp_path / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"batch": 4000}, "batch is 4000, and 8 pictures are there .* at most 8"),
        ({"batch": 5, "accumulate": 5, "data": {"held": 8}}, "batch is 5, and 4"),
        ({"tracker": "wandb"}, r'need wandb: run `pip install "sanakit\[wandb\]"`'),
        ({"tracker": "trackio"}, "need trackio"),
        ({"optimizer": {"name": "adamw-8bit"}}, "needs torchao"),
        ({"task": "autoencoder", "model": {}, "batch": 64}, "fill no batch of 64"),
        ({"parallel": "ddp"}, "start it by torchrun"),
    ],
)  # fmt: skip
def test_a_run_that_cannot_work_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], told: str
) -> None:
    for name in ("wandb", "trackio", "torchao"):
        monkeypatch.setitem(sys.modules, name, None)
    data = {"path": str(pictures()), "square": True, "held": 4} | changes.pop("data", {})
    with pytest.raises(ConfigError, match=told):
        Session(config(tmp_path / "run", **{"data": data, **changes}), device="cpu")
    assert not (tmp_path / "run").exists()


def spoilt(folder: Path, at: int, steps: int, **settings: Any) -> tuple[list[str], Trainer]:
    """A run whose weights stop being numbers at a step, as after a step that was far too large."""
    run = start(folder, steps, **settings)
    clean, told = loss_of(run), []

    def loss(batch: Any, generator: torch.Generator) -> dict[str, Tensor]:
        parts = clean(batch, generator)
        if run.step == at:
            with torch.no_grad():
                next(run.model.parameters()).fill_(math.nan)
        return parts

    for event in run.train(loss, batches_of(run)):
        told.append(str(event))
    return told, run


def test_weights_that_are_no_numbers_are_not_saved_and_the_good_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        NumericsError, match=f"not finite at step 9.*is {tmp_path}/checkpoints/step-00000004"
    ) as caught:
        spoilt(tmp_path, 6, 9, save_steps=4, keep=1)
    assert caught.value.exit_code == 1
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000004"]
    with pytest.raises(NumericsError, match="there is no checkpoint"):
        spoilt(tmp_path / "short", 1, 2)


def test_a_run_that_goes_back_survives_weights_that_are_no_numbers(tmp_path: Path) -> None:
    run = start(tmp_path, 12, guard=GuardConfig(patience=2), save_steps=4)
    clean, once = loss_of(run), [7]

    def loss(batch: Any, generator: torch.Generator) -> dict[str, Tensor]:
        parts = clean(batch, generator)
        if once and run.step == once[0]:
            once.clear()
            with torch.no_grad():
                next(run.model.parameters()).fill_(math.nan)
        return parts

    told = [str(event) for event in run.train(loss, batches_of(run))]
    assert any("not saved: the weights are not finite; the last good checkpoint is" in line for line in told)
    assert any("back to step 4" in line for line in told)
    assert run.finite() and run.step == 12
    run.check_result()


@pytest.mark.parametrize("saved", [False, True])
def test_a_run_whose_steps_were_all_skipped_exports_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saved: bool
) -> None:
    if saved:
        first = {"phases": [{"steps": 2, "size": 64}], "guard": {"patience": 0}}
        list(Session(config(tmp_path, **first), device="cpu").events())
        (tmp_path / "model/model_index.json").unlink()
    usual = FlowMatching.losses

    def poisoned(objective: FlowMatching, batch: NoisyBatch, generator: torch.Generator) -> dict[str, Tensor]:
        return {"loss": usual(objective, batch, generator)["loss"] * math.nan}

    monkeypatch.setattr(FlowMatching, "losses", poisoned)
    phases = [{"steps": 5, "size": 64}]
    with pytest.raises(NumericsError, match=r"all \d steps were skipped, so no model is written") as caught:
        list(
            Session(
                config(tmp_path, phases=phases, guard={"patience": 0}), device="cpu", resume=saved
            ).events()
        )
    assert not (tmp_path / "model/model_index.json").exists()
    assert "checkpoint is" in str(caught.value)


@pytest.mark.parametrize("clip", [0, None, 0.0])
def test_no_clip_is_no_limit_and_not_no_learning(tmp_path: Path, clip: float | None) -> None:
    free, wide = start(tmp_path / "free", 5, clip=clip), start(tmp_path / "wide", 5, clip=1e9)
    list(free.train(loss_of(free), batches_of(free)))
    list(wide.train(loss_of(wide), batches_of(wide)))
    for one, other in zip(free.model.parameters(), wide.model.parameters(), strict=True):
        assert torch.equal(one, other)
    first = start(tmp_path / "first", 5)
    assert not torch.equal(next(free.model.parameters()), next(first.model.parameters()))
    assert config(tmp_path, clip=clip).identity["clip"] == 0.0


def test_the_rate_that_is_told_is_the_one_that_was_used(tmp_path: Path) -> None:
    run = start(tmp_path, 4, lr=1e-2, warmup=4, cooldown=0.0, report=1)
    used = []

    def loss(batch: Any, generator: torch.Generator) -> dict[str, Tensor]:
        used.append(run.players[0].optimizer.param_groups[0]["lr"])
        return loss_of(run)(batch, generator)

    told = [event.lr for event in run.train(loss, batches_of(run)) if hasattr(event, "lr")]
    assert told == used == pytest.approx([0.0025, 0.005, 0.0075, 0.01])


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (20, 2), (5000, 500), (20_000, 2000), (10**6, 2000)])
def test_the_usual_warm_up_leaves_a_run_time_to_learn(tmp_path: Path, steps: int, warmup: int) -> None:
    made = config(
        tmp_path, phases=[{"steps": steps, "size": 64}], schedule={}, data={"path": str(pictures())}
    )
    assert made.schedule.warmup_of(steps) == warmup
    largest, mean = rate_shares(made)
    assert largest == 1 and mean > 0.9
    assert not config_warnings(made)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"schedule": {"warmup": 2000}},
            "warmup is 2000 .* in a run of 6 steps: .* never reaches optimizer.lr",
        ),
        ({"schedule": {"warmup": 4, "cooldown": 0.9}}, "never reaches optimizer.lr"),
        ({"schedule": {"warmup": 0, "cooldown": 1.0}, "phases": [{"steps": 4000, "size": 64}]}, None),
        ({"optimizer": {"lr": 0}}, "optimizer.lr is 0: nothing is learnt"),
        ({"validate": 100, "data": {"path": "x", "held": 4}}, "validate is 100 and the run has 6 steps"),
        ({"preview": {"every": 7}}, "preview.every is 7"),
        ({"saving": {"steps": 7}}, "saving.steps is 7"),
        ({"data": {"path": "x", "held": 4}}, "nothing is measured on them"),
        ({"data": {"path": "x", "captions": {"dropout": 1.0}}}, "no caption is ever read"),
        (
            {"data": {"path": "x", "captions": {"kind": "first", "threshold": 9}}},
            "threshold is not read with .* first",
        ),
        ({"optimizer": {"block": 64}}, "optimizer.block is not read with optimizer.name adamw"),
        ({"optimizer": {"name": "came", "clip_threshold": 2.0}}, None),
        ({"times": {"density": {"name": "uniform", "std": 2.0}}}, "mean, std is not read with .* uniform"),
        ({"guard": {"rollbacks": 9}}, "guard.rollbacks is not read"),
        ({"autoencoder": {"phase": "refinement"}}, "autoencoder is not read with the task transformer"),
        (
            {"task": "autoencoder", "autoencoder": {"loss": {"pixel": 0, "perceptual": 0}}},
            "every weight is 0",
        ),
        (
            {"task": "autoencoder", "autoencoder": {"phase": "refinement", "loss": {"adversarial_start": 6}}},
            "the critic never plays",
        ),
        ({"task": "autoencoder", "autoencoder": {"loss": {"latent": 1}}}, "no effect one without the other"),
        ({"task": "autoencoder", "autoencoder": {"preset": "other"}}, "preset is not read with .*start base"),
    ],
)
def test_what_can_hardly_be_meant_is_told(tmp_path: Path, changes: dict[str, Any], told: str | None) -> None:
    found = config_warnings(config(tmp_path, **{"data": {"path": "x"}, **changes}))
    assert [bool(re.search(told, line)) for line in found] == [True] if told else not found
