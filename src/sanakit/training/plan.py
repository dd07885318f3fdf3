"""What a run is going to do, told before it begins: network, set, cache, steps, memory per device, time."""

from __future__ import annotations

from dataclasses import dataclass

from sanakit.base.precision import Precision
from sanakit.training.config import TrainConfig
from sanakit.training.jobs.job import Size
from sanakit.training.parallel import World

_STATE = {"adamw": 8.0, "came": 4.1, "came-8bit": 1.2, "adamw-8bit": 2.1}
"""Bytes of the optimiser's state per parameter, about; see docs/optimizers.md."""

_WEIGHTS = 12
"""Bytes per parameter of weights, average and gradients, float32 each."""

_USUAL_SHARE = 0.3
"""Of the rate of products that training usually reaches; the bar knows better after a few steps."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Facts and estimates of a run.

    Attributes:
        size: what the job will take. lr: of this batch. begins: the step it goes on from.
        pictures, faults: of the set. free: bytes that are free on the device, where that is known.
        rate: operations per second of this machine's products in the dtype of the run.
    """

    config: TrainConfig
    size: Size
    precision: Precision
    world: World
    lr: float
    begins: int
    pictures: int
    faults: int
    free: int | None
    rate: float

    @property
    def memory(self) -> int:
        """Bytes per device: weights, average, gradients and optimiser (shared under fsdp), and activations."""
        share = self.world.size if self.world.mode == "fsdp" else 1
        kept = self.size.parameters * (_WEIGHTS + _STATE[self.config.optimizer.name]) / share
        half = 1 if self.precision.dtype.itemsize == 4 else 2
        return int(kept + self.size.activations / half)

    @property
    def seconds(self) -> float:
        """Of a step, at the share of the machine's rate that is usual."""
        return self.size.operations / self.world.size / self.rate / _USUAL_SHARE

    @property
    def eta(self) -> float:
        """Seconds left."""
        return (self.config.steps - self.begins) * self.seconds

    def lines(self) -> list[str]:
        """The plan as a table of text."""
        config, size = self.config, self.size
        rows = [
            ("run", str(config.folder)),
            ("trains", f"{size.network}, {size.parameters / 1e6:.1f} M parameters"),
            ("on", f"{config.data.path}: {self._set()}"),
            ("cache", self._cache()),
            ("phases", "; ".join(f"{p.steps} steps at {p.size} px" for p in config.phases)),
            ("batch", self._batch()),
            ("optimiser", f"{config.optimizer.name}, learning rate {self.lr:.3g}{self._rule()}"),
            (
                "device",
                f"{self.precision.device}, {self.world.mode} of {self.world.size}; {self.precision.reason}",
            ),
            ("memory", f"about {self.memory / 1e9:.1f} GB{self._free()}"),
            ("steps", f"{self.begins} to {config.steps}, about {_time(self.eta)}: {self._why()}"),
        ]
        return [f"{name:<10} {text}" for name, text in rows]

    def _set(self) -> str:
        held = f", {self.config.data.held} held out" if self.config.data.held else ""
        faults = f", {self.faults} faults (sanakit data check lists them)" if self.faults else ""
        return f"{self.pictures} pictures{held}{faults}"

    def _cache(self) -> str:
        there, wanted = self.size.cached, self.size.wanted
        if not wanted:
            return "none: pictures are read as they are"
        return f"{there} of {wanted} latents are there" + (
            "" if there == wanted else "; the others are made first"
        )

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
            f"{self.size.operations / 1e12:.2f} T operations a step, of which {_USUAL_SHARE:.0%} of "
            f"{self.rate / 1e12:.2f} T/s is usual"
        )


def _time(seconds: float) -> str:
    value, unit = seconds / 60, "min"
    if value >= 90:
        value, unit = value / 60, "h"
    if unit == "h" and value >= 48:
        value, unit = value / 24, "days"
    return f"{value:.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"
