"""Run by torchrun in `test_parallel.py`: small runs on several processes, one after another; rank 0 writes what it saw.

Arguments: jobs as folder:mode:steps:accumulate; each writes folder/seen-STEPS.pt.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from sanakit.training import StepReport, Trainer, World, join_world, leave_world, shard
from sanakit.training.parallel import whole
from tests.training.small import network, start, train


def trained(folder: Path, steps: int, accumulate: int, world: World | None = None) -> dict[str, Any]:
    """Train, or go on, until `steps`: the losses and the weights."""
    world = world or World()
    model = network()
    shard(model, world, blocks=[model[0]])
    settings = {"accumulate": accumulate, "report": 1, "keep": 0, "save_steps": 20}
    run: Trainer = start(folder, steps, model, world=world, **settings)
    losses = [event.losses["loss"] for event in train(run) if isinstance(event, StepReport)]
    weights = {name: whole(p.detach()) for name, p in model.named_parameters()}
    return {"losses": losses, "weights": weights, "step": run.step}


def main() -> None:
    torch.set_num_threads(1)
    world = join_world(torch.device("cpu"))
    for job in sys.argv[1:]:
        folder, mode, steps, accumulate = job.split(":")
        joined = World(rank=world.rank, size=world.size, device=world.device, mode=mode)  # type: ignore[arg-type]
        seen = trained(Path(folder), int(steps), int(accumulate), joined)
        if world.leads:
            torch.save(seen, Path(folder) / f"seen-{steps}.pt")
    leave_world(world)


if __name__ == "__main__":
    main()
