"""One training loop: batches in, weights out, resumable at any step, on one process or many.

A run is a pure function of its config: micro-batch n is `batches(n)`, noise comes from generators seeded by
(seed, n), so a resumed run continues as the uninterrupted one would have.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sanakit.base.errors import NumericsError
from sanakit.base.seeds import epoch_generator
from sanakit.training.checkpoint import Checkpoints, read_facts, read_into
from sanakit.training.control import WISHES, Control
from sanakit.training.dump import dump_batch
from sanakit.training.ema import EMA
from sanakit.training.facts import check_facts, gather_facts
from sanakit.training.guard import Guard
from sanakit.training.journal import write_entry
from sanakit.training.loop_config import LoopConfig
from sanakit.training.meter import Meter, Pace
from sanakit.training.optim import adamw, trapezoid
from sanakit.training.parallel import World, average_gradients, local, quiet, whole
from sanakit.training.report import Event, Notice, Progress, Report
from sanakit.training.speed import product_rate
from sanakit.training.state import begin_state, run_tensors

Loss = Callable[[Any, torch.Generator], dict[str, Tensor]]
Batches = Callable[[int], Any]


@dataclass(frozen=True, kw_only=True)
class Chore:
    """Something done now and then with the run: validation, a preview.

    run: given the run, returns figures to keep. needed: a failure ends the run; otherwise it is a notice.
    expected: about how many training steps it takes, for the time left until it was measured.
    at_start: before the first step, too. picture: the PNG that it has written, for trackers.
    """

    name: str
    every: int
    run: Callable[[Run], Mapping[str, float]]
    needed: bool = True
    expected: float = 0.0
    at_start: bool = False
    picture: Callable[[Run], Path] | None = None


class Run:
    """A model under training, with its optimiser, average and position. `model` holds every trained parameter.

    It trains where its parameters are; noise generators are of the CPU, so a run is the same wherever it trains.
    Constructing it restores the newest whole checkpoint of its folder.

    Args:
        model: spread over the processes already, where there are several.
        config: see `LoopConfig`.
        optimizer: over the model's parameters; None for AdamW of the config.
        world: this process's place among others.
        identity: settings without which a checkpoint must not be continued, as JSON.
        told: is given sentences while restoring.

    Raises:
        WeightsError: where no checkpoint of the folder is whole.
        ConfigError: where its checkpoint belongs to other settings.
    """

    def __init__(
        self,
        model: nn.Module,
        config: LoopConfig,
        *,
        optimizer: torch.optim.Optimizer | None = None,
        world: World | None = None,
        identity: Mapping[str, Any] | None = None,
        told: Callable[[str], object] = lambda text: None,
    ) -> None:
        self.model, self.config = model, config
        self.world = world or World()
        self.device = next(model.parameters()).device
        self.optimizer = optimizer or adamw(model, config.lr, config.weight_decay, config.betas)
        self.ema = EMA(model, config.ema)
        self.guard = Guard(config.guard)
        self.identity = dict(identity or {})
        self.checkpoints = Checkpoints(config.folder, self.world, config.keep)
        self.step = 0
        self.lr, self.rate = 0.0, config.rate
        self.pace = Pace()
        self._saved = 0
        self._stopped = False
        self._tried = self._taken = 0
        newest = self.checkpoints.latest(told)
        if newest is not None:
            self._restore(newest)

    @property
    def skipped(self) -> int:
        """Steps skipped since the run began."""
        return self.guard.skipped

    def train(self, loss: Loss, batches: Batches, chores: Sequence[Chore] = ()) -> Iterator[Event]:
        """Train to the end, yielding how far it is after each step, reports now and then, and notices.

        Args:
            loss: (micro-batch, generator) -> named scalars; "loss" is the one that is minimised.
            batches: number of a micro-batch -> this process's share of it; step s takes those from s * accumulate on.
            chores: what else is done now and then; a wish of the chore's name runs it at once.

        Raises:
            KeyboardInterrupt: after SIGINT, SIGTERM, SIGHUP or the file `stop`, once the step under way is finished and
                saved. A run of one process whose events nobody takes any more (`close`) is saved, too.
            NumericsError: where the run went back too often, or ends with weights that are no numbers.
        """
        self._stopped = False
        self.model.train()
        try:
            with Control(self.config.folder) as control:
                yield from self._steps(loss, batches, chores, control)
        except GeneratorExit:  # who listened is gone, as a terminal that was closed
            if self.world.size == 1:
                self.check_weights()
                self.save()
            raise
        self.check_weights()
        self.save()
        if self._stopped:
            raise KeyboardInterrupt

    def check_weights(self) -> None:
        """Raises NumericsError where a weight or an average is no number. To be called by every process."""
        if self.finite():
            return
        raise NumericsError(
            f"the weights are no numbers at step {self.step}, so nothing is saved or exported; {self._newest()}; "
            "lower optimizer.lr, or let the run go back by itself with guard.patience"
        )

    def check_result(self) -> None:
        """Raises NumericsError where there is nothing to export: weights that are no numbers, or never were trained."""
        self.check_weights()
        if self._tried and not self._taken:
            raise NumericsError(
                f"all {self._tried} steps were skipped, so no model is written; {self._newest()}; "
                f"look at the batches in {self.config.folder / 'skipped'}, or lower optimizer.lr"
            )

    def finite(self) -> bool:
        """Whether every weight and every average is a number, on every process."""
        tensors = [*self.model.parameters(), *self.ema.weights.values()]
        good = all(bool(torch.isfinite(local(tensor.detach())).all()) for tensor in tensors)
        return not self.world.agree(frozenset() if good else frozenset({"bad"}), ("bad",))

    def _newest(self) -> str:
        self.checkpoints.finish()  # one that is being written counts
        steps = self.checkpoints.steps()
        return (
            f"the last good checkpoint is {self.checkpoints.path(steps[-1])}"
            if steps
            else "there is no checkpoint"
        )

    def autocast(self) -> torch.autocast:
        """The dtype of the computation, as a context."""
        dtype = self.config.dtype
        return torch.autocast(self.device.type, dtype or torch.bfloat16, enabled=dtype is not None)

    def save(self, behind: bool = False) -> None:
        """Write a checkpoint: at once, or in the background."""
        if self.step == 0:
            return
        write = self.checkpoints.save_behind if behind else self.checkpoints.save
        facts = gather_facts(self.step, self.guard.state(), self.identity, self.world)
        write(self.step, run_tensors(self.model, self.ema, self.optimizer), facts)
        self._saved = self.step

    def _steps(
        self, loss: Loss, batches: Batches, chores: Sequence[Chore], control: Control
    ) -> Iterator[Event]:
        meter, saved, self.pace = Meter(), time.monotonic(), Pace()
        while self.step < self.config.steps:
            wishes = self._wishes(control, saved)
            if "save" in wishes:
                saved = time.monotonic()
                yield self._save_behind()
            yield from self._chores(chores, wishes)
            if "stop" in wishes:
                self._stopped = True
                return
            yield from self._one_step(loss, batches, meter)
            left = self._left(chores)
            yield Progress(label="training", done=self.step, total=self.config.steps, remaining=left)
            if self.step % self.config.report_every == 0 or self.step == self.config.steps:
                yield self._report(meter, left)
        yield from self._chores(chores, frozenset())

    def _save_behind(self) -> Notice:
        """Save, unless the weights are no numbers: the guard needs the checkpoint before."""
        if not self.finite():
            return Notice(step=self.step, text=f"not saved: the weights are no numbers; {self._newest()}")
        self.save(behind=True)
        return Notice(step=self.step, text="saving")

    def _left(self, chores: Sequence[Chore]) -> float | None:
        """Seconds expected to the end."""
        known = {chore.name: (chore.every, chore.expected) for chore in chores}
        return self.pace.left(self.step, self.config.steps, known)

    def _wishes(self, control: Control, saved: float) -> frozenset[str]:
        """What was asked of any process, and what the clock asks of the first."""
        wishes = {str(wish) for wish in control.take()}
        steps, minutes = self.config.save_steps, self.config.save_minutes
        if self.world.leads and time.monotonic() - saved > minutes * 60:
            wishes.add("save")
        if steps and self.step and self.step % steps == 0 and self.step != self._saved:
            wishes.add("save")
        return self.world.agree(frozenset(wishes), WISHES)

    def _chores(self, chores: Sequence[Chore], wishes: frozenset[str]) -> Iterator[Event]:
        for chore in chores:
            begun = self.step > 0 or chore.at_start
            due = begun and chore.every > 0 and self.step % chore.every == 0
            if due or chore.name in wishes:
                yield self._do(chore)

    def _do(self, chore: Chore) -> Notice:
        begun = time.monotonic()
        try:
            values = dict(chore.run(self))
        except Exception as failure:
            if chore.needed:
                raise
            return Notice(step=self.step, text=f"{chore.name} failed, the run goes on: {failure}")
        finally:
            self.pace.chore(chore.name, time.monotonic() - begun)
        self.model.train()
        if self.world.leads and values:
            write_entry(self.config.folder, self.step, values, kind=chore.name)
        told = " ".join(f"{name} {value:.5f}" for name, value in values.items())
        picture = None if chore.picture is None else chore.picture(self)
        return Notice(step=self.step, text=f"{chore.name} {told}".rstrip(), values=values, picture=picture)

    def _one_step(self, loss: Loss, batches: Batches, meter: Meter) -> Iterator[Event]:
        if self.step in self.guard.avoided:
            yield Notice(step=self.step, text="passed by: it was skipped before")
            self.step += 1
            return
        with meter.step():
            notices = list(self._act(loss, batches, meter))
        self.pace.step(meter.last)
        yield from notices

    def _act(self, loss: Loss, batches: Batches, meter: Meter) -> Iterator[Event]:
        """Take a step, or skip it, or go back."""
        self.lr = self._lr()
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * group.get("scale", 1.0)
        micro, parts = self._gradients(loss, batches, meter)
        limit = self.config.clip or math.inf
        norm = float(whole(nn.utils.clip_grad_norm_(self.model.parameters(), limit)))
        total = float(parts["loss"])
        fault, verdict = self.guard.fault(total, norm), self.guard.judge(self.step, total, norm)
        self._tried += 1
        if verdict == "keep":
            self._taken += 1
            self.optimizer.step()
            self.ema.update(self.model, self.step)
            meter.add(parts, norm)
        self.optimizer.zero_grad(set_to_none=True)
        if fault is not None:
            dumped = dump_batch(self.config.folder, self.step, self.world.rank, micro)
            yield Notice(step=self.step, text=f"skipped: {fault}; the batch is kept in {dumped}")
        self.step += 1
        if verdict == "back":
            yield self._go_back()

    def _gradients(self, loss: Loss, batches: Batches, meter: Meter) -> tuple[list[Any], dict[str, Tensor]]:
        """Mean gradients of a step's micro-batches over all processes; the batches, and the mean of each loss."""
        config, count = self.config, self.config.accumulate
        torch.manual_seed(config.seed * 1_000_003 + self.step)
        sums: dict[str, Tensor] = {}
        seen: list[Any] = []
        for number in range(self.step * count, (self.step + 1) * count):
            begun = time.monotonic()
            seen.append(batches(number))
            meter.waited += time.monotonic() - begun
            meter.operations += config.operations(seen[-1]) if config.operations else 0.0
            generator = epoch_generator(config.seed, number)
            with self.autocast():
                parts = loss(seen[-1], generator)
            with quiet(self.model, last=number % count == count - 1):
                (parts["loss"] / count).backward()
            for name, value in parts.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value.detach().float() / count
        average_gradients(self.model, self.world)
        return seen, {name: self.world.mean(value) for name, value in sums.items()}

    def _go_back(self) -> Notice:
        """To the newest checkpoint, to pass the bad steps by. Raises NumericsError where that did not help."""
        config, strikes, reached = self.config.guard, list(self.guard.strikes), self.step
        self.checkpoints.finish()
        newest = self.checkpoints.latest()
        if newest is None or self.guard.rolled_back >= config.rollbacks:
            often = f"it went back {config.rollbacks} times before; {self._newest()}"
            why = "there is no checkpoint" if newest is None else often
            raise NumericsError(
                f"{len(strikes)} steps in a row, the last {strikes[-1]}, had to be skipped, and {why}; "
                f"lower the learning rate, or look at the batches in {self.config.folder / 'skipped'}"
            )
        self._restore(newest)
        self.guard.go_back(strikes)
        text = f"{len(strikes)} steps in a row were skipped: back to step {self.step}"
        return Notice(step=reached, text=text)

    def _report(self, meter: Meter, left: float | None) -> Report:
        """What to say of the steps since the last report; it goes into the journal as well."""
        report = Report(
            step=self.step, steps=self.config.steps, losses=meter.losses, lr=self.lr, norm=meter.norm,
            seconds=meter.seconds, eta=left or 0.0, images=self.config.samples / max(meter.seconds, 1e-9),
            waited=meter.waited / max(meter.trained, 1e-9), mfu=self._mfu(meter), skipped=self.skipped,
        )  # fmt: skip
        if self.world.leads:
            write_entry(self.config.folder, self.step, report.values)
        meter.reset()
        return report

    def _mfu(self, meter: Meter) -> float | None:
        """The share of the device's rate that the steps took, 1 at most; None where it is unknown.

        A rate that training beats was measured while the machine was busy: it is measured again.
        """
        if not (self.rate and meter.operations):
            return None
        reached = meter.operations / max(meter.trained, 1e-9)
        if reached > self.rate:
            again = product_rate(self.device, self.config.dtype or torch.float32)
            self.rate = max(self.rate, again, reached)
        return reached / self.rate

    def _restore(self, checkpoint: Path) -> None:
        facts = read_facts(checkpoint)
        check_facts(facts, self.identity, checkpoint)
        begin_state(self.optimizer)
        read_into(checkpoint, run_tensors(self.model, self.ema, self.optimizer), self.world)
        self.step = self._saved = int(facts["step"])
        self.guard.restore(facts["guard"])

    def _lr(self) -> float:
        config = self.config
        return config.lr * trapezoid(self.step, config.steps, config.warmup, config.cooldown)
