"""A run that takes milliseconds: a small network, noisy regression, batches from a fixed table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sanakit.base.seeds import batch_indices
from sanakit.training import (
    DataConfig,
    Event,
    GuardConfig,
    Hook,
    LRScheduleConfig,
    OptimizerConfig,
    RunPhase,
    SavingConfig,
    TrainConfig,
    Trainer,
    velocity,
)

BATCH = 4
DATA = torch.randn(16, 3, generator=torch.Generator().manual_seed(5))


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 8), nn.SiLU(), nn.Linear(8, 3))


def small_config(
    folder: Path,
    steps: int,
    *,
    lr: float = 5e-4,
    warmup: int = 2,
    cooldown: float = 0.2,
    save_steps: int = 0,
    keep: int = 2,
    **changes: Any,
) -> TrainConfig:
    """The config of a run of the small network; what it says of pictures is not read."""
    settings = {"clip": 1.0, "ema": 0.999, "report": 3, "guard": GuardConfig()} | changes
    return TrainConfig(
        folder=folder, batch=BATCH, phases=(RunPhase(steps=steps, size=32),), data=DataConfig(path=folder),
        optimizer=OptimizerConfig(lr=lr, betas=(0.9, 0.99)),
        schedule=LRScheduleConfig(warmup=warmup, cooldown=cooldown),
        saving=SavingConfig(minutes=9.0, steps=save_steps, keep=keep), **settings,
    )  # fmt: skip


def start(folder: Path, steps: int, model: nn.Module | None = None, **changes: Any) -> Trainer:
    parts = {
        name: changes.pop(name)
        for name in ("players", "world", "identity", "speed", "notify")
        if name in changes
    }
    return Trainer(model or network(), small_config(folder, steps, **changes), **parts)


def batches_of(run: Trainer) -> Callable[[int], tuple[Tensor, Tensor]]:
    """Micro-batches of data and noise; each sample's noise depends on its row of the whole batch alone."""
    count, world = run.config.accumulate, run.world

    def batches(number: int) -> tuple[Tensor, Tensor]:
        step, micro = divmod(number, count)
        x = DATA[batch_indices(step, BATCH, len(DATA), seed=0)]
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(step))
        part = slice(micro * BATCH // count, (micro + 1) * BATCH // count)
        share = world.share(BATCH // count)
        return x[part][share], noise[part][share]

    return batches


def loss_of(run: Trainer) -> Callable[[tuple[Tensor, Tensor], torch.Generator], dict[str, Tensor]]:
    def loss(batch: tuple[Tensor, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        x, noise = batch
        return velocity(run.model(x + noise), noise - x)

    return loss


def train(run: Trainer, hooks: Sequence[Hook] = (), until: int | None = None) -> list[Event]:
    """To the end, or until a step, after which the run is dropped as by a crash."""
    events = []
    loss = loss_of(run)

    def dying(batch: Any, generator: torch.Generator) -> dict[str, Tensor]:
        if run.step == until:
            raise ConnectionAbortedError
        return loss(batch, generator)

    try:
        for event in run.train(dying, batches_of(run), hooks):
            events.append(event)
    except ConnectionAbortedError:
        run.checkpoints.finish()
    return events


def same(a: Trainer, b: Trainer) -> bool:
    """Whether weights and averages are the same to the bit."""
    weights = all(torch.equal(x, y) for x, y in zip(a.model.parameters(), b.model.parameters(), strict=True))
    return weights and all(torch.equal(a.ema.weights[name], b.ema.weights[name]) for name in a.ema.weights)
