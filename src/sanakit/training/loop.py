"""One training loop: batches in, weights out, resumable at any step.

A run is a pure function of its config: batch n is `batches(n)`, noise comes from a generator seeded by (seed, n), so a
resumed run continues as the uninterrupted one would have.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sanakit.training.checkpoint import load_state, save_state
from sanakit.training.ema import EMA
from sanakit.training.interrupt import Interruption
from sanakit.training.journal import write_entry
from sanakit.training.optimizer import adamw, trapezoid

Loss = Callable[[Any, torch.Generator], dict[str, Tensor]]


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How long, how fast, where to.

    Attributes:
        folder: of the checkpoint.
        steps: in all; a finished run continues when this is raised.
        lr, weight_decay, betas, clip: of AdamW and of the gradient's norm.
        warmup: steps of linear warm-up.
        cooldown: share of the run over which the learning rate falls linearly to zero.
        ema: decay of the averaged weights.
        seed: of batches and noise.
        save_minutes: between checkpoints.
        report_every: steps between reports.
        dtype: of the autocast; None for float32.
    """

    folder: Path
    steps: int
    lr: float = 5e-4
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = 1.0
    warmup: int = 200
    cooldown: float = 0.2
    ema: float = 0.999
    seed: int = 0
    save_minutes: float = 5.0
    report_every: int = 50
    dtype: torch.dtype | None = torch.bfloat16


@dataclass(frozen=True)
class Report:
    """What a run says of itself: means since the last report."""

    step: int
    steps: int
    losses: dict[str, float]
    lr: float
    steps_per_second: float
    skipped: int

    @property
    def eta(self) -> float:
        """Seconds left at the present rate."""
        return (self.steps - self.step) / max(self.steps_per_second, 1e-9)

    def __str__(self) -> str:
        losses = " ".join(f"{name} {value:.5f}" for name, value in self.losses.items())
        skipped = f" skipped {self.skipped}" if self.skipped else ""
        return (
            f"step {self.step}/{self.steps} {losses} lr {self.lr:.2e} "
            f"{self.steps_per_second:.2f} steps/s eta {self.eta / 60:.1f} min{skipped}"
        )


class Run:
    """A model under training, with its optimiser, average and position. `model` holds every trained parameter.

    It trains where its parameters are; noise generators are of the CPU, so a run is the same wherever it trains.
    """

    def __init__(self, model: nn.Module, config: LoopConfig) -> None:
        self.model, self.config = model, config
        self.device = next(model.parameters()).device
        self.optimizer = adamw(model, config.lr, config.weight_decay, config.betas)
        self.ema = EMA(model, config.ema)
        self.step = 0
        self.skipped = 0
        state = load_state(config.folder)
        if state is not None:
            self._restore(state)

    def train(self, loss: Loss, batches: Callable[[int], Any]) -> Iterator[Report]:
        """Train to the end, yielding a report now and then.

        Args:
            loss: (batch, generator) -> named scalars; "loss" is the one that is minimised.
            batches: step -> batch.

        Raises:
            KeyboardInterrupt: after SIGINT or SIGTERM, once the step under way is finished and saved.
        """
        with Interruption() as interruption:
            yield from self._steps(loss, batches, interruption)
        self.save()
        if interruption.asked:
            raise KeyboardInterrupt

    def _steps(
        self, loss: Loss, batches: Callable[[int], Any], interruption: Interruption
    ) -> Iterator[Report]:
        self.model.train()
        sums: dict[str, Tensor] = {}
        count, since, saved = 0, time.monotonic(), time.monotonic()
        while self.step < self.config.steps and not interruption.asked:
            parts = self._one_step(loss, batches(self.step))
            sums = {name: sums.get(name, torch.zeros(())) + value for name, value in parts.items()}
            count += 1
            if self.step % self.config.report_every == 0 or self.step == self.config.steps:
                yield self._report(sums, count, time.monotonic() - since)
                sums, count, since = {}, 0, time.monotonic()
            if time.monotonic() - saved > self.config.save_minutes * 60:
                self.save()
                saved = time.monotonic()

    def _report(self, sums: dict[str, Tensor], count: int, seconds: float) -> Report:
        """What to say of the last `count` steps; it goes into the journal as well."""
        means = {name: float(value) / count for name, value in sums.items()}
        report = Report(self.step, self.config.steps, means, self._lr(), count / seconds, self.skipped)
        known = {"lr": report.lr, "steps_per_second": report.steps_per_second}
        write_entry(self.config.folder, self.step, means | known)
        return report

    def save(self) -> None:
        """Write the checkpoint."""
        state = {
            "model": self.model.state_dict(),
            "ema": self.ema.weights,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "skipped": self.skipped,
        }
        save_state(self.config.folder, state)

    def _restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.ema.weights = {name: weight.to(self.device) for name, weight in state["ema"].items()}
        self.step, self.skipped = state["step"], state["skipped"]

    def _one_step(self, loss: Loss, batch: Any) -> dict[str, Tensor]:
        config = self.config
        for group in self.optimizer.param_groups:
            group["lr"] = self._lr()
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + self.step)
        dtype = config.dtype or torch.bfloat16
        with torch.autocast(self.device.type, dtype=dtype, enabled=config.dtype is not None):
            parts = loss(batch, generator)
        parts["loss"].backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), config.clip)
        if math.isfinite(float(norm)):
            self.optimizer.step()
            self.ema.update(self.model, self.step)
        else:
            self.skipped += 1
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return {name: value.detach().float() for name, value in parts.items()}

    def _lr(self) -> float:
        config = self.config
        return config.lr * trapezoid(self.step, config.steps, config.warmup, config.cooldown)
