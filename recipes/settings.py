"""The config of a recipe that brings batches and losses of its own: what the trainer reads of a `TrainConfig`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps
from pathlib import Path

import torch
from torch import nn

from sanakit.base.precision import decide
from sanakit.training import (
    DataConfig,
    GuardConfig,
    LRScheduleConfig,
    OptimizerConfig,
    Player,
    RunPhase,
    SavingConfig,
    TrainConfig,
    Trainer,
)
from sanakit.training.optim import OptimizerName


def settings(
    folder: Path,
    steps: int,
    *,
    size: int,
    batch: int,
    lr: float,
    weight_decay: float = 0.0,
    warmup: int = 200,
    cooldown: float = 0.2,
    ema: float = 0.999,
    minutes: float = 5.0,
    report: int = 50,
    optimizer: OptimizerName = "adamw",
) -> TrainConfig:
    """A run of `steps` steps; `data.path` is where the recipe keeps its scenes and is not read."""
    return TrainConfig(
        folder=folder,
        batch=batch,
        phases=(RunPhase(steps=steps, size=size),),
        data=DataConfig(path=folder.parent),
        optimizer=OptimizerConfig(name=optimizer, lr=lr, betas=(0.9, 0.99), weight_decay=weight_decay),
        schedule=LRScheduleConfig(warmup=warmup, cooldown=cooldown),
        clip=1.0,
        ema=ema,
        guard=GuardConfig(),
        saving=SavingConfig(minutes=minutes),
        report=report,
    )


def shortened(config: TrainConfig, steps: int | None) -> TrainConfig:
    """The same run with so many steps; None leaves it as it is."""
    return config if steps is None else replace(config, phases=(replace(config.phases[0], steps=steps),))


def autocast(device: torch.device) -> torch.autocast:
    """A context in the dtype that is fastest here."""
    dtype = decide(device.type).dtype
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)


def recipe_trainer(model: nn.Module, config: TrainConfig, players: Sequence[Player] = ()) -> Trainer:
    """The trainer of a model, in the dtype that is fastest here; it goes on from the newest checkpoint of the run."""
    dtype = decide(next(model.parameters()).device.type).dtype
    return Trainer(model, config, players, dtype=None if dtype == torch.float32 else dtype)


def resumable(main: Callable[[], None]) -> Callable[[], None]:
    """Wrap the main function of a recipe that can go on: stopped, it says so and exits with 130."""

    @wraps(main)
    def wrapped() -> None:
        try:
            main()
        except KeyboardInterrupt:
            print("\nstopped; the same command goes on from there", file=sys.stderr)
            raise SystemExit(130) from None

    return wrapped
