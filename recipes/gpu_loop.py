"""Training against the clock, on one GPU: a run ends when its seconds are over, and its rate falls accordingly.

`sanakit.training` counts steps, so that a run can be interrupted and give the same numbers again. Where a machine is
there for some minutes only, time is what is known before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sanakit.adapt.graphs import record_cuda
from sanakit.training.optim.build import adamw
from sanakit.training.players import EMA

Losses = Callable[[], dict[str, Tensor]]
"""Compute the losses of a step, for data that it draws itself."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast a run learns.

    Attributes:
        lr: learning rate at its height.
        warmup, cooldown: shares of the run in which the rate rises from and falls to zero.
        ema: decay of the averaged weights.
        weight_decay: of AdamW.
        clip: largest norm of a gradient.
    """

    lr: float
    warmup: float = 0.02
    cooldown: float = 0.5
    ema: float = 0.999
    weight_decay: float = 0.0
    clip: float = 1.0

    def factor(self, done: float) -> float:
        """The share of `lr` after the share `done` of the run."""
        return max(0.0, min(1.0, done / self.warmup, (1 - done) / self.cooldown))


class Learner:
    """A network with its optimiser and its averaged weights; float32."""

    def __init__(self, network: nn.Module, pace: Pace) -> None:
        self.network, self.pace, self.steps = network, pace, 0
        self.optimizer = adamw(network, pace.lr, pace.weight_decay, betas=(0.9, 0.99))
        self.average = EMA(network, pace.ema)

    def gradients(self, losses: Losses, loss: str = "loss") -> Losses:
        """Return a call of `losses` that leaves the gradients of one of them with the network."""

        def run() -> dict[str, Tensor]:
            self.network.zero_grad(set_to_none=True)
            found = losses()
            found[loss].backward()
            return {name: value.detach() for name, value in found.items()}

        return run

    def step(self, done: float) -> Tensor:
        """Take a step by the gradients, after the share `done` of the run; return the gradient's norm."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.pace.lr * self.pace.factor(done)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.pace.clip)
        self.optimizer.step()
        self.average.update(self.network, self.steps)
        self.steps += 1
        return norm


def recorded(run: Losses) -> Losses:
    """Return a call that launches all kernels of `run` as one CUDA graph; on a CPU `run` itself.

    A small network's kernels end before Python has launched the next. `run` must launch the same ones every time, and
    draw from torch's default generator. Its results, gradients among them, are overwritten by every call.
    """
    if not torch.cuda.is_available():
        return run
    found = dict[str, Tensor]()

    def keep() -> Tensor:
        found.update(run())
        return next(iter(found.values()))

    _, replay = record_cuda(keep)

    def again() -> dict[str, Tensor]:
        replay()
        return found

    return again


def run_for(
    seconds: float,
    step: Callable[[int, float], Mapping[str, Tensor]],
    say: Callable[[str], object],
    report: float = 5.0,
) -> int:
    """Call `step` (number, share of the run that is over) until the time is over; return the number of steps.

    What it returns is told every `report` seconds: a GPU is asked for numbers no more often. Ctrl-C ends the run early,
    and what was learnt until then is kept like that of a whole run.
    """
    begun = told = time.monotonic()
    number = 0
    try:
        while (now := time.monotonic()) - begun < seconds:
            found = step(number, (now - begun) / seconds)
            number += 1
            if now - told >= report or number == 1:
                told = now
                parts = ", ".join(f"{name} {float(value.detach()):.4g}" for name, value in found.items())
                say(f"{now - begun:.0f}/{seconds:.0f} s, step {number}: {parts}")
    except KeyboardInterrupt:
        say(f"stopped after {number} steps; the averaged weights are written")
    return number
