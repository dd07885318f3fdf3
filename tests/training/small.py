"""A run that takes milliseconds: a small network, noisy regression, batches from a fixed table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sanakit.base.seeds import batch_indices
from sanakit.training import Chore, LoopConfig, Run, World, velocity
from sanakit.training.report import Event

BATCH = 4
DATA = torch.randn(16, 3, generator=torch.Generator().manual_seed(5))


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 8), nn.SiLU(), nn.Linear(8, 3))


def start(folder: Path, steps: int, model: nn.Module | None = None, **changes: Any) -> Run:
    parts = {key: changes.pop(key) for key in ("optimizer", "world", "identity", "told") if key in changes}
    settings: dict[str, Any] = {"warmup": 2, "report_every": 3, "dtype": None, "save_minutes": 9.0} | changes
    config = LoopConfig(folder=folder, steps=steps, **settings)
    return Run(model or network(), config, **parts)


def batches_of(run: Run) -> Callable[[int], tuple[Tensor, Tensor]]:
    """Micro-batches of data and noise; each sample's noise depends on its place in the whole batch alone."""
    count, world = run.config.accumulate, run.world

    def batches(number: int) -> tuple[Tensor, Tensor]:
        step, micro = divmod(number, count)
        x = DATA[batch_indices(step, BATCH, len(DATA), seed=0)]
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(step))
        part = slice(micro * BATCH // count, (micro + 1) * BATCH // count)
        share = world.share(BATCH // count)
        return x[part][share], noise[part][share]

    return batches


def loss_of(run: Run) -> Callable[[tuple[Tensor, Tensor], torch.Generator], dict[str, Tensor]]:
    def loss(batch: tuple[Tensor, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        x, noise = batch
        return velocity(run.model(x + noise), noise - x)

    return loss


def train(run: Run, chores: Sequence[Chore] = (), until: int | None = None) -> list[Event]:
    """To the end, or until a step, after which the run is dropped as by a crash."""
    events = []
    loss, world = loss_of(run), World()
    assert world.leads

    def dying(batch: Any, generator: torch.Generator) -> dict[str, Tensor]:
        if run.step == until:
            raise ConnectionAbortedError
        return loss(batch, generator)

    try:
        for event in run.train(dying, batches_of(run), chores):
            events.append(event)
    except ConnectionAbortedError:
        run.checkpoints.finish()
    return events


def same(a: Run, b: Run) -> bool:
    """Whether weights and averages are the same to the bit."""
    weights = all(torch.equal(x, y) for x, y in zip(a.model.parameters(), b.model.parameters(), strict=True))
    return weights and all(torch.equal(a.ema.weights[name], b.ema.weights[name]) for name in a.ema.weights)
