"""The training loop: batches in, weights out, resumable at any step, on one process or many.

A run is a pure function of its config: micro-batch n is `batches(n)`, and everything random in it comes from seeds of
the config, n and the sample (`base.seeds`), so a resumed run continues as the uninterrupted one would have.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sanakit.base.errors import NumericsError
from sanakit.base.precision import autocast
from sanakit.base.seeds import epoch_generator, epoch_seed
from sanakit.training.checkpoint import Checkpoints, read_facts, read_into, stored_names
from sanakit.training.config import TrainConfig
from sanakit.training.events import Event, Message, Progress, StepReport
from sanakit.training.guard import Guard, dump_batch
from sanakit.training.log import write_entry
from sanakit.training.meter import Meter, Pace, Speed
from sanakit.training.optim import trapezoid
from sanakit.training.parallel import World, average_gradients, local, quiet
from sanakit.training.players import EMA, Player, joint_norm, make_player
from sanakit.training.run_state import begin_state, check_facts, gather_facts, plays_in, run_tensors
from sanakit.training.signals import SIGNALS, SignalHandler

Losses = Callable[[Any, torch.Generator], dict[str, Tensor]]
Batches = Callable[[int], Any]


@dataclass(frozen=True, kw_only=True)
class Hook:
    """Something done now and then with a run: validation, a preview.

    run: given the trainer, returns figures to keep. required: a failure ends the run; otherwise it is a message.
    expected: about how many training steps it takes, for the time left until it was measured.
    at_start: before the first step, too. picture: the PNG that it has written, for trackers.
    warning: what the figures say that a reader should not miss, before they are in the journal; "" for nothing.
    """

    name: str
    every: int
    run: Callable[[Trainer], Mapping[str, float]]
    required: bool = True
    expected: float = 0.0
    at_start: bool = False
    picture: Callable[[Trainer], Path] | None = None
    warning: Callable[[Trainer, Mapping[str, float]], str] | None = None


class Trainer:
    """A network under training: its players, and the position of the run.

    It trains where its parameters are; generators are of the CPU, so a run is the same wherever it trains.
    Constructing it restores the newest whole checkpoint of its folder.

    Args:
        model: holds every tensor that a checkpoint keeps; wrapped and sharded already.
        config: of the run. The trainer reads its length, rates, limits, saving and folder, and nothing of its pictures.
        players: who learns, the main one first; () for one player with all of the model and the config's optimiser.
        dtype: of the autocast; None for float32.
        world: this process among others.
        identity: settings without which a checkpoint must not be continued, as JSON.
        speed: operations of a micro-batch and of the machine, for MFU.
        notify: is given sentences while restoring.

    Raises:
        WeightsError: if there are checkpoints in the folder and none is whole.
        ConfigError: if the newest one belongs to other settings.
    """

    def __init__(
        self,
        model: nn.Module,
        config: TrainConfig,
        players: Sequence[Player] = (),
        *,
        dtype: torch.dtype | None = None,
        world: World | None = None,
        identity: Mapping[str, Any] | None = None,
        speed: Speed | None = None,
        notify: Callable[[str], object] = lambda text: None,
    ) -> None:
        self.model, self.config, self.dtype = model, config, dtype
        self.players = tuple(players) or (make_player(model, config),)
        self.averages = {p.name: EMA(p.module, p.ema) for p in self.players if p.ema is not None}
        self.world = world or World()
        self.device = next(model.parameters()).device
        self.guard = Guard(config.guard, self.players[0].name)
        self.identity = dict(identity or {})
        self.checkpoints = Checkpoints(config.folder, self.world, config.saving.keep)
        self.speed = speed or Speed()
        self.step, self.lr = 0, 0.0
        self.pace = Pace()
        self._saved = 0
        self._stopped = False
        self._tried = self._taken = 0
        newest = self.checkpoints.latest(notify)
        if newest is not None:
            self._restore(newest)

    @property
    def ema(self) -> EMA:
        """The average of the main player."""
        return self.averages[self.players[0].name]

    @property
    def skipped(self) -> int:
        """Steps skipped since the run began."""
        return self.guard.skipped

    def train(self, losses: Losses, batches: Batches, hooks: Sequence[Hook] = ()) -> Iterator[Event]:
        """Train to the end; yield progress after each step, a report every few steps, and messages.

        Args:
            losses: (micro-batch, generator) -> named scalars, among them those that the players minimise.
            batches: number of a micro-batch -> this process's share of it; step s takes those from s * accumulate on.
            hooks: what else is done now and then; a signal of a hook's name runs it at once.

        Raises:
            KeyboardInterrupt: after SIGINT, SIGTERM, SIGHUP or the file `stop`, once the step under way is finished and
                saved. A run of one process is also saved if nobody takes its events any more (`close`).
            NumericsError: if the run went back too often, or ends with weights that are not finite.
        """
        self._stopped = False
        self.model.train()
        try:
            with SignalHandler(self.config.folder) as signals:
                yield from self._steps(losses, batches, hooks, signals)
        except GeneratorExit:  # the consumer is gone, as a terminal that was closed
            if self.world.size == 1:
                self.check_weights()
                self.save()
            raise
        self.check_weights()
        self.save()
        if self._stopped:
            raise KeyboardInterrupt

    def check_weights(self) -> None:
        """Raise NumericsError if a weight or an average is not finite. To be called by every process."""
        if self.finite():
            return
        raise NumericsError(
            f"the weights are not finite at step {self.step}, so nothing is saved or exported; {self._newest()}; "
            "lower optimizer.lr, or let the run go back by itself with guard.patience"
        )

    def check_result(self) -> None:
        """Raise NumericsError if there is nothing to export: weights that are not finite, or never were trained."""
        self.check_weights()
        if self._tried and not self._taken:
            raise NumericsError(
                f"all {self._tried} steps were skipped, so no model is written; {self._newest()}; "
                f"look at the batches in {self.config.folder / 'skipped'}, or lower optimizer.lr"
            )

    def finite(self) -> bool:
        """Return whether every weight and every average is finite, on every process."""
        averages = (weight for ema in self.averages.values() for weight in ema.weights.values())
        tensors = [*self.model.parameters(), *averages]
        good = all(bool(torch.isfinite(local(tensor.detach())).all()) for tensor in tensors)
        return not self.world.agree(frozenset() if good else frozenset({"bad"}), ("bad",))

    def _newest(self) -> str:
        self.checkpoints.finish()  # one that is being written counts
        steps = self.checkpoints.steps()
        if not steps:
            return "there is no checkpoint"
        return f"the last good checkpoint is {self.checkpoints.path(steps[-1])}"

    def autocast(self) -> torch.autocast:
        """Return a context with the dtype of the computation."""
        return autocast(self.device, self.dtype or torch.float32)

    def save(self, behind: bool = False) -> None:
        """Write a checkpoint: at once, or in the background."""
        if self.step == 0:
            return
        write = self.checkpoints.save_behind if behind else self.checkpoints.save
        facts = gather_facts(self.step, self.guard.state(), self.identity, self.world)
        write(self.step, run_tensors(self.model, self.players, self.averages), facts)
        self._saved = self.step

    def _steps(
        self, losses: Losses, batches: Batches, hooks: Sequence[Hook], handler: SignalHandler
    ) -> Iterator[Event]:
        meter, saved, self.pace = Meter(), time.monotonic(), Pace()
        while self.step < self.config.steps:
            signals = self._signals(handler, saved)
            if "save" in signals:
                saved = time.monotonic()
                yield self._save_behind()
            yield from self._run_hooks(hooks, signals)
            if "stop" in signals:
                self._stopped = True
                return
            yield from self._one_step(losses, batches, meter)
            left = self._left(hooks)
            yield Progress(label="training", done=self.step, total=self.config.steps, remaining=left)
            if self.step % self.config.report == 0 or self.step == self.config.steps:
                yield self._report(meter, left)
        yield from self._run_hooks(hooks, frozenset())

    def _save_behind(self) -> Message:
        """Save, unless the weights are not finite: the guard needs the checkpoint before."""
        if not self.finite():
            return Message(step=self.step, text=f"not saved: the weights are not finite; {self._newest()}")
        self.save(behind=True)
        return Message(step=self.step, text="saving")

    def _left(self, hooks: Sequence[Hook]) -> float | None:
        """Return the expected seconds to the end."""
        known = {hook.name: (hook.every, hook.expected) for hook in hooks}
        return self.pace.left(self.step, self.config.steps, known)

    def _signals(self, handler: SignalHandler, saved: float) -> frozenset[str]:
        """Return the signals to any process, and those that the clock of the first one gives."""
        signals = {str(signal) for signal in handler.take()}
        saving = self.config.saving
        if self.world.leads and time.monotonic() - saved > saving.minutes * 60:
            signals.add("save")
        if saving.steps and self.step and self.step % saving.steps == 0 and self.step != self._saved:
            signals.add("save")
        return self.world.agree(frozenset(signals), SIGNALS)

    def _run_hooks(self, hooks: Sequence[Hook], signals: frozenset[str]) -> Iterator[Event]:
        for hook in hooks:
            begun = self.step > 0 or hook.at_start
            due = begun and hook.every > 0 and self.step % hook.every == 0
            if due or hook.name in signals:
                yield self._run_hook(hook)

    def _run_hook(self, hook: Hook) -> Message:
        begun = time.monotonic()
        try:
            values = dict(hook.run(self))
        except Exception as failure:
            if hook.required:
                raise
            return Message(step=self.step, text=f"{hook.name} failed, the run goes on: {failure}")
        finally:
            self.pace.hook(hook.name, time.monotonic() - begun)
        self.model.train()
        warning = hook.warning(self, values) if hook.warning is not None and self.world.leads else ""
        if self.world.leads and values:
            write_entry(self.config.folder, self.step, values, kind=hook.name)
        figures = " ".join(f"{name} {value:.5f}" for name, value in values.items())
        picture = None if hook.picture is None else hook.picture(self)
        text = f"{hook.name} {figures}".rstrip() + (f"; {warning}" if warning else "")
        return Message(step=self.step, text=text, values=values, picture=picture)

    def _one_step(self, losses: Losses, batches: Batches, meter: Meter) -> Iterator[Event]:
        if self.step in self.guard.avoided:
            yield Message(step=self.step, text="passed by: it was skipped before")
            self.step += 1
            return
        with meter.step():
            messages = list(self._take_step(losses, batches, meter))
        self.pace.step(meter.last)
        yield from messages

    def _take_step(self, losses: Losses, batches: Batches, meter: Meter) -> Iterator[Event]:
        """Take a step, or skip it, or go back."""
        factor = self._schedule()
        self.lr = [player.set_rate(factor) for player in self.players][0]
        micro, parts = self._gradients(losses, batches, meter)
        playing = [player for player in self.players if player.loss in parts]
        norms = {player.name: player.clip_gradient() for player in playing}
        total = float(parts["loss"])
        fault = self.guard.fault(total, norms)
        verdict = self.guard.judge(self.step, total, norms)
        self._tried += 1
        if verdict == "keep":
            self._taken += 1
            self._move(playing)
            meter.add(parts, joint_norm(list(norms.values())))
        for player in self.players:
            player.optimizer.zero_grad(set_to_none=True)
        if fault is not None:
            dumped = dump_batch(self.config.folder, self.step, self.world.rank, micro)
            yield Message(step=self.step, text=f"skipped: {fault}; the batch is kept in {dumped}")
        self.step += 1
        if verdict == "back":
            yield self._go_back()

    def _move(self, playing: Sequence[Player]) -> None:
        for player in playing:
            player.optimizer.step()
            if player.name in self.averages:
                self.averages[player.name].update(player.module, self.step)

    def _gradients(
        self, losses: Losses, batches: Batches, meter: Meter
    ) -> tuple[list[Any], dict[str, Tensor]]:
        """Mean gradients of a step's micro-batches over all processes; the batches, and the mean of each loss.

        "loss" is then the sum of what the players minimise.
        """
        config, count = self.config, self.config.accumulate
        torch.manual_seed(epoch_seed(config.seed, self.step))
        sums: dict[str, Tensor] = {}
        seen: list[Any] = []
        for number in range(self.step * count, (self.step + 1) * count):
            begun = time.monotonic()
            seen.append(batches(number))
            meter.waited += time.monotonic() - begun
            meter.operations += self.speed.operations(seen[-1])
            with self.autocast():
                parts = losses(seen[-1], epoch_generator(config.seed, number))
            total = self._total(parts)
            with quiet(self.model, last=number % count == count - 1):
                (total / count).backward()
            for name, value in (parts | {"loss": total}).items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value.detach().float() / count
        average_gradients(self.model, self.world)
        return seen, {name: self.world.mean(value) for name, value in sums.items()}

    def _total(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Return the sum of the losses that players minimise: each has a gradient for its own player alone."""
        first, *others = (parts[player.loss] for player in self.players if player.loss in parts)
        for loss in others:
            first = first + loss
        return first

    def _go_back(self) -> Message:
        """Go to the newest checkpoint, to pass the bad steps by. Raises NumericsError if that did not help."""
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
        return Message(step=reached, text=text)

    def _report(self, meter: Meter, left: float | None) -> StepReport:
        """Return the report of the steps since the last one; it goes into the journal as well."""
        mfu = self.speed.share(meter.operations / max(meter.trained, 1e-9), self.device, self.dtype)
        report = StepReport(
            step=self.step, steps=self.config.steps, losses=meter.losses, lr=self.lr, norm=meter.norm,
            seconds=meter.seconds, eta=left or 0.0, images=self.config.batch / max(meter.seconds, 1e-9),
            waited=meter.waited / max(meter.trained, 1e-9), mfu=mfu, skipped=self.skipped,
        )  # fmt: skip
        if self.world.leads:
            write_entry(self.config.folder, self.step, report.values)
        meter.reset()
        return report

    def _restore(self, checkpoint: Path) -> None:
        facts = read_facts(checkpoint)
        check_facts(facts, self.identity, checkpoint)
        stored = stored_names(checkpoint)
        for player in self.players:
            if plays_in(stored, self.model, player):
                begin_state(player.optimizer)
        read_into(checkpoint, run_tensors(self.model, self.players, self.averages), self.world)
        self.step = self._saved = int(facts["step"])
        self.guard.restore(facts["guard"])

    def _schedule(self) -> float:
        """Return the share of every learning rate at this step."""
        steps, schedule = self.config.steps, self.config.schedule
        return trapezoid(self.step, steps, schedule.warmup_of(steps), schedule.cooldown)
