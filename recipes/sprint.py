"""SANA-Sprint as published (arXiv 2503.09641 and its training code), for 1024 px; `sanakit train recipes/sprint.py`.

The teacher must read times in 0..1 and have qk-norm; the published one was made from a SANA-1.6B so. Everything else
that the published script sets is a default of `sprint` (docs/sprint.md has the list, and what differs). For another
teacher, set or size: `--set base=... --set data.path=... --set 'phases[0].size=512'`.
"""

from __future__ import annotations

from pathlib import Path

from sanakit.training import (
    DataConfig,
    GuardConfig,
    LRScheduleConfig,
    OptimizerConfig,
    RunPhase,
    SavingConfig,
    TrainConfig,
)
from sanakit.training.objectives.sprint_settings import CriticConfig, SprintConfig

BATCH = 16
"""Pictures of one GPU, as published; the batch of a run is that times its processes."""

STEPS = 40_000
"""Half of them the student's. Ours: the published script runs until it is stopped."""


def config() -> TrainConfig:
    """The run on one GPU. CAME with betas and epsilons as for SANA; both players have the same rate."""
    optimizer = OptimizerConfig(name="came", lr=2e-6)
    return TrainConfig(
        folder=Path("runs/sprint"),
        task="sprint",
        base="runs/teacher/model",
        batch=BATCH,
        phases=(RunPhase(steps=STEPS, size=1024),),
        data=DataConfig(path=Path("data/pictures")),
        sprint=SprintConfig(critic=CriticConfig(optimizer=optimizer)),
        optimizer=optimizer,
        schedule=LRScheduleConfig(warmup=5000),
        clip=0.1,
        recompute=1,
        guard=GuardConfig(spike=20.0, patience=5),
        saving=SavingConfig(minutes=30.0),
    )
