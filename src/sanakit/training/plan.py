"""What a run is going to do, told before it begins: network, set, cache, steps, memory per device, time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from sanakit.base.precision import Precision
from sanakit.training.config import TrainConfig
from sanakit.training.parallel import World
from sanakit.training.speed import activation_bytes, product_rate, step_operations
from sanakit.transformer import TransformerConfig

_STATE = {"adamw": 8.0, "came": 4.1, "came-8bit": 1.2, "adamw-8bit": 2.1}
"""Bytes of the optimiser's state per parameter, about; see docs/optimizers.md."""

_USUAL_SHARE = 0.3
"""Of the rate of products that training usually reaches; the bar knows better after a few steps."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Facts and estimates of a run.

    Attributes:
        network: in words. parameters: how many. steps, begins: in all, and where it goes on.
        pictures, usable, held, faults: of the set. cached, wanted: latents that are there, of those needed.
        memory: bytes per device, estimated. operations: of a step, over all devices. seconds: estimated, of a step.
        rate: operations per second of this machine's products in the dtype of the run.
    """

    config: TrainConfig
    network: str
    parameters: int
    precision: Precision
    world: World
    lr: float
    begins: int
    pictures: int
    held: int
    faults: int
    cached: int
    wanted: int
    memory: int
    free: int | None
    operations: float
    rate: float

    @property
    def seconds(self) -> float:
        """Of a step, at the share of the machine's rate that is usual."""
        return self.operations / self.world.size / self.rate / _USUAL_SHARE

    @property
    def eta(self) -> float:
        """Seconds left."""
        return (self.config.steps - self.begins) * self.seconds

    def lines(self) -> list[str]:
        """The plan as a table of text."""
        rows = [
            ("run", str(self.config.folder)),
            ("trains", f"{self.network}, {self.parameters / 1e6:.1f} M parameters"),
            ("on", f"{self.config.data.path}: {self._set()}"),
            ("cache", f"{self.cached} of {self.wanted} latents are there{self._fill()}"),
            ("phases", "; ".join(f"{p.steps} steps at {p.size} px" for p in self.config.phases)),
            ("batch", self._batch()),
            ("optimiser", f"{self.config.optimizer.name}, learning rate {self.lr:.3g}{self._rule()}"),
            (
                "device",
                f"{self.precision.device}, {self.world.mode} of {self.world.size}; {self.precision.reason}",
            ),
            ("memory", f"about {self.memory / 1e9:.1f} GB{self._free()}"),
            ("steps", f"{self.begins} to {self.config.steps}, about {_time(self.eta)}: {self._why()}"),
        ]
        return [f"{name:<10} {text}" for name, text in rows]

    def _set(self) -> str:
        held = f", {self.held} held out" if self.held else ""
        faults = f", {self.faults} faults (sanakit data check lists them)" if self.faults else ""
        return f"{self.pictures} pictures{held}{faults}"

    def _fill(self) -> str:
        return "" if self.cached >= self.wanted else "; the others are made first"

    def _batch(self) -> str:
        parts = self.config.accumulate * self.world.size
        each = f", {self.config.batch // parts} at a time" if parts > 1 else ""
        return f"{self.config.batch} pictures{each}"

    def _rule(self) -> str:
        rule = self.config.schedule.rule
        return "" if rule == "none" else f" ({self.config.optimizer.lr:.3g} for 256, by {rule})"

    def _free(self) -> str:
        return "" if self.free is None else f" of {self.free / 1e9:.1f} free"

    def _why(self) -> str:
        return (
            f"{self.operations / 1e12:.2f} T operations a step, of which {_USUAL_SHARE:.0%} of "
            f"{self.rate / 1e12:.2f} T/s is usual"
        )


def needed_memory(
    config: TrainConfig, shape: TransformerConfig, parameters: int, world: World, ratio: int, words: int
) -> int:
    """Bytes per device: weights, average, gradients and optimiser (shared under fsdp), and activations."""
    share = world.size if world.mode == "fsdp" else 1
    kept = parameters * (12 + _STATE[config.optimizer.name]) / share
    samples = config.batch // (config.accumulate * world.size)
    most = max(phase.size for phase in config.phases)
    activations = activation_bytes(shape, most // ratio, samples, words) / (
        1 if config.dtype == "fp32" else 2
    )
    if config.recompute:
        recomputed = (
            shape.depth if config.recompute == 1 else shape.depth - -(-shape.depth // config.recompute)
        )
        activations *= (shape.depth - recomputed + 1) / shape.depth
    return int(kept + activations)


def needed_operations(config: TrainConfig, shape: TransformerConfig, ratio: int, words: int) -> float:
    """Operations of a step of the largest phase."""
    return step_operations(shape, max(p.size for p in config.phases) // ratio, config.batch, words)


def count_parameters(model: nn.Module) -> int:
    """Of all weights."""
    return sum(p.numel() for p in model.parameters())


def machine_rate(precision: Precision, dtype: torch.dtype | None) -> float:
    """Operations per second of products in the dtype that is computed in."""
    return product_rate(precision.device, dtype or torch.float32)


def _time(seconds: float) -> str:
    unit: Literal["min", "h", "days"] = "min"
    value = seconds / 60
    if value >= 90:
        unit, value = "h", value / 60
    if unit == "h" and value >= 48:
        unit, value = "days", value / 24
    return f"{value:.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"
