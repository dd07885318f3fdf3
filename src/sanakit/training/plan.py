"""The plan of a run, printed before it begins: network, set, schedule, cache, memory per device, disk, time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from sanakit.base.precision import Precision
from sanakit.training.config import TrainConfig
from sanakit.training.config_warnings import config_warnings, rate_shares
from sanakit.training.cost import STATE, Memory, step_memory, writing_bytes
from sanakit.training.parallel import World
from sanakit.training.tasks.task import Workload
from sanakit.training.tasks.training_set import Epoch

_USUAL_SHARE = 0.3
"""Share of the rate of products that training usually reaches; progress bars know better after a few steps."""

_FILES = 8 + 2
"""Bytes per parameter that a checkpoint holds of weights and average, and the finished model in bf16."""

_BUCKETS = 3  # of a phase that are named


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Facts and estimates of a run.

    Attributes:
        work: what the task will take. epochs: how each phase walks over the set. lr: of this batch.
        begins: the step it goes on from.
        pictures, faults: of the set. free: bytes that are free on the device, if that is known.
        disk: free bytes on the disk of the run's folder, if that is known.
        program: bytes that this process holds already.
        rate: operations per second of this machine's products in the dtype of the run.
        changed: sentences on what has become of set and base model since the run began; "" says nothing.
        remarks: gives rows of the task's own, (name, sentence); asked for only if the plan is printed.
    """

    config: TrainConfig
    work: Workload
    epochs: tuple[Epoch, ...]
    precision: Precision
    world: World
    lr: float
    begins: int
    pictures: int
    faults: int
    free: int | None
    disk: int | None
    program: int
    rate: float
    changed: Sequence[str] = ()
    remarks: Callable[[], Iterable[tuple[str, str]]] = tuple

    @cached_property
    def memory(self) -> Memory:
        """Bytes per process."""
        config, work = self.config, self.work
        share = self.world.size if self.world.mode == "fsdp" else 1
        half = self.precision.dtype.itemsize == 2
        made = step_memory(
            work.parameters,
            work.trained,
            config.optimizer.name,
            work.activations,
            half,
            share,
            work.unaveraged,
        )
        saves = config.saving.steps in range(1, config.steps + 1) or self.eta > config.saving.minutes * 60
        return replace(
            made, program=self.program, frozen=work.frozen, encoders=work.encoders if work.cached < work.wanted else 0,
            drawing=work.drawing if config.preview.every else 0, checkpoint=writing_bytes(made.network, saves),
        )  # fmt: skip

    @property
    def seconds(self) -> float:
        """Seconds of a step, at the share of the machine's rate that is usual."""
        return self.work.operations / self.world.size / self.rate / _USUAL_SHARE

    @property
    def eta(self) -> float:
        """Seconds of the steps that are left."""
        return max(0, self.config.steps - self.begins) * self.seconds

    @property
    def checkpoint_bytes(self) -> int:
        """Bytes of one checkpoint."""
        state = STATE[self.config.optimizer.name] * self.work.trained
        return round(_FILES * self.work.parameters - 2 * self.work.parameters + state)

    @property
    def disk_bytes(self) -> int:
        """Bytes that the run will write: what the cache lacks, checkpoints, one more while it is written, the model."""
        saving, left = self.config.saving, max(0, self.config.steps - self.begins)
        every = left // saving.steps if saving.steps else 0
        count = saving.keep or 1 + max(every, int(self.eta / 60 / saving.minutes))
        return self.work.cache_bytes + (count + 1) * self.checkpoint_bytes + 2 * self.work.parameters

    @cached_property
    def warnings(self) -> list[str]:
        """Sentences about what can hardly be meant, or will not fit."""
        found = [*config_warnings(self.config), *filter(None, self.changed)]
        if self.begins > self.config.steps:
            found.append(
                f"the run is at step {self.begins} and has {self.config.steps} steps: nothing is left to train"
            )
        if self.free is not None and self.memory.peak - self.program > self.free:
            found.append(
                f"about {self.memory.peak / 1e9:.1f} GB are needed and {self.free / 1e9:.1f} GB are free: lower batch, "
                "raise accumulate, or set recompute=1"
            )
        if self.disk is not None and self.disk_bytes > self.disk:
            found.append(
                f"about {_bytes(self.disk_bytes)} will be written to {self.config.folder} and {_bytes(self.disk)} "
                "are free: lower saving.keep, or take another folder"
            )
        return found

    def lines(self) -> list[str]:
        """Return the plan as a table of text."""
        config, work = self.config, self.work
        rows = [
            ("run", str(config.folder)),
            ("trains", f"{work.network}, {work.parameters / 1e6:.1f} M parameters{self._trained()}"),
            ("on", f"{config.data.path}: {self._set()}"),
            ("cache", self._cache()),
            ("phases", "; ".join(f"{p.steps} steps at {p.size} px" for p in config.phases)),
            ("epochs", "; ".join(self._epochs(number) for number in range(len(config.phases)))),
            ("batch", self._batch()),
            ("optimiser", f"{config.optimizer.name}, learning rate {self.lr:.3g}{self._rule()}"),
            ("schedule", self._schedule()),
            (
                "device",
                f"{self.precision.device}, {self.world.mode} of {self.world.size}; {self.precision.reason}",
            ),
            ("memory", f"about {self.memory.peak / 1e9:.1f} GB{self._free()}: {self.memory.words}"),
            ("disk", self._disk()),
            ("steps", f"{self.begins} to {config.steps}, about {_time(self.eta)}: {self._why()}"),
            *(("warning", text) for text in self.warnings),
        ]
        return [f"{name:<10} {text}" for name, text in [*rows, *self.remarks()]]

    def _trained(self) -> str:
        work = self.work
        return "" if work.trained == work.parameters else f", {work.trained / 1e6:.1f} M of them trained"

    def _set(self) -> str:
        held = f", {self.config.data.held} held out" if self.config.data.held else ""
        faults = f", {self.faults} faults (sanakit data check lists them)" if self.faults else ""
        words = f", about {self.work.words} tokens a caption with padding" if self.work.words else ""
        return f"{self.pictures} pictures{held}{faults}{words}"

    def _cache(self) -> str:
        work = self.work
        if not work.wanted:
            return "none: pictures are read as they are"
        text = f"{work.cached} of {work.wanted} latents are there"
        if work.unknown:
            text += f", {work.unknown} are not looked up before their pictures are read"
        if work.follows:
            text += f", {work.followed} of {work.follows} trajectories"
        if (work.cached, work.followed) == (work.wanted, work.follows):
            return text
        seconds = work.cache_operations / self.world.size / self.rate / _USUAL_SHARE
        return f"{text}; the others are made first, about {_time(seconds)} and {_bytes(work.cache_bytes)}"

    def _epochs(self, number: int) -> str:
        epoch, phase = self.epochs[number], self.config.phases[number]
        named = sorted(epoch.buckets.items(), key=lambda pair: -pair[1])
        sizes = ", ".join(f"{count} of {width}x{height}" for (height, width), count in named[:_BUCKETS])
        more = f" and {len(named) - _BUCKETS} more sizes" if len(named) > _BUCKETS else ""
        never = f"; {epoch.never} fill no batch and are never seen" if epoch.never else ""
        return f"{phase.steps / epoch.steps:.1f} of {epoch.steps} steps ({sizes}{more}{never})"

    def _batch(self) -> str:
        parts = self.config.accumulate * self.world.size
        each = f", {self.config.batch // parts} at a time" if parts > 1 else ""
        return f"{self.config.batch} pictures{each}"

    def _rule(self) -> str:
        rule = self.config.schedule.rule
        return "" if rule == "none" else f" ({self.config.optimizer.lr:.3g} for 256, by {rule})"

    def _schedule(self) -> str:
        schedule, steps = self.config.schedule, self.config.steps
        fall = f", a fall to 0 over the last {schedule.cooldown:.0%}" if schedule.cooldown else ""
        _, mean = rate_shares(self.config)
        return f"warm-up over {schedule.warmup_of(steps)} steps{fall}; {mean:.0%} of the rate on average"

    def _free(self) -> str:
        return "" if self.free is None else f", {self.free / 1e9:.1f} free"

    def _disk(self) -> str:
        keep = self.config.saving.keep
        free = "" if self.disk is None else f", {_bytes(self.disk)} free"
        return (
            f"about {_bytes(self.disk_bytes)}{free}: checkpoints of {_bytes(self.checkpoint_bytes)}, "
            f"{f'{keep} stay' if keep else 'all stay'}"
        )

    def _why(self) -> str:
        return (
            f"{self.work.operations / 1e12:.2f} T operations a step, of which {_USUAL_SHARE:.0%} of "
            f"{self.rate / 1e12:.2f} T/s is usual"
        )


def _bytes(count: int) -> str:
    value, unit = count / 1e6, "MB"
    if value >= 1000:
        value, unit = value / 1000, "GB"
    return f"{value:.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"


def _time(seconds: float) -> str:
    value, unit = seconds / 60, "min"
    if value >= 90:
        value, unit = value / 60, "h"
    if unit == "h" and value >= 48:
        value, unit = value / 24, "days"
    return f"{value:.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"
