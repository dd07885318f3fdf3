"""The settings of the loop: how long, how fast, where to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from sanakit.training.guard import GuardConfig


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How long, how fast, where to.

    Attributes:
        folder: of the run: checkpoints, journal, dumped batches.
        steps: in all; a finished run continues when this is raised.
        lr, weight_decay, betas: of AdamW.
        clip: largest norm of the gradient; 0 or None for no limit.
        warmup: steps of linear warm-up.
        cooldown: share of the run over which the learning rate falls linearly to zero.
        accumulate: micro-batches whose mean gradient makes one step.
        ema: decay of the averaged weights.
        seed: of batches and noise.
        save_minutes, save_steps: between checkpoints; 0 steps for none by number.
        keep: checkpoints that stay; 0 for all.
        report_every: steps between reports.
        dtype: of the autocast; None for float32.
        guard: when a step is skipped, and when the run goes back.
        samples: of a step, over all processes, for the report; 0 where unknown.
        operations: of a micro-batch of this process; None where they are not counted.
        rate: operations a second that the device does at best; with both the report says what share of it training
            takes (MFU).
    """

    folder: Path
    steps: int
    lr: float = 5e-4
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float | None = 1.0
    warmup: int = 200
    cooldown: float = 0.2
    accumulate: int = 1
    ema: float = 0.999
    seed: int = 0
    save_minutes: float = 5.0
    save_steps: int = 0
    keep: int = 2
    report_every: int = 50
    dtype: torch.dtype | None = torch.bfloat16
    guard: GuardConfig = field(default_factory=GuardConfig)
    samples: int = 0
    operations: Callable[[Any], float] | None = None
    rate: float = 0.0
