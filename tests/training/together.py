"""Small runs on one process or as one of two, for `test_parallel.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sanakit.training import StepReport, Trainer, World, join_world, shard
from sanakit.training.parallel import Mode, whole
from tests.training.small import network, start, train


def trained(folder: Path, steps: int, accumulate: int, world: World | None = None) -> dict[str, Any]:
    """Train, or go on, until `steps`: the losses and the weights."""
    world = world or World()
    model = network()
    shard(model, world, blocks=[model[0]])
    settings = {"accumulate": accumulate, "report": 1, "keep": 0, "save_steps": 8}
    run: Trainer = start(folder, steps, model, world=world, **settings)
    losses = [event.losses["loss"] for event in train(run) if isinstance(event, StepReport)]
    weights = {name: whole(p.detach()) for name, p in model.named_parameters()}
    return {"losses": losses, "weights": weights, "step": run.step}


def trained_by_two(folder: Path, mode: Mode, steps: int, accumulate: int) -> None:
    """A job of a `Pair`: the same as one of two; the first writes what it saw to folder/seen-STEPS.pt."""
    world = join_world(torch.device("cpu"), mode)
    seen = trained(folder, steps, accumulate, world)
    if world.leads:
        torch.save(seen, folder / f"seen-{steps}.pt")
