"""The loss on held-out pictures with fixed noise at fixed times: comparable from one measurement to the next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby

import torch
from torch import Tensor

from sanakit.base.seeds import sample_seed
from sanakit.flow import even_times
from sanakit.training.objectives.objective import Measurable
from sanakit.training.objectives.velocity import loss_by_time
from sanakit.training.tasks.latents import LatentData, NoisyBatch
from sanakit.training.trainer import Hook, Trainer

BUCKETS = 10
_SEED = 20_241_010
_ROWS = 16
_FORWARD = 3  # a training step is about three forward passes


def validation(objective: Measurable, data: LatentData, every: int) -> Hook:
    """Measure the averaged weights: the mean loss, and the loss in each tenth of the noise levels."""

    def measure(trainer: Trainer) -> Mapping[str, float]:
        phase, _ = data.config.phase_at(max(0, trainer.step - 1))  # of the last step
        times, losses = [], []
        objective.network.eval()
        with trainer.ema.applied(trainer.players[0].module), trainer.autocast():
            for batch in fixed_batches(objective, data, phase):
                times.append(batch.t)
                losses.append(objective.errors(batch).cpu())
        curve = loss_by_time(torch.cat(times), torch.cat(losses), BUCKETS)
        parts = {
            f"loss_{number / BUCKETS:.1f}": float(value)
            for number, value in enumerate(curve)
            if not value.isnan()  # few held-out pictures leave tenths without a time
        }
        return {"loss": float(torch.cat(losses).mean())} | parts

    expected = data.config.data.held / (_FORWARD * data.config.batch)
    return Hook(name="validation", every=every, run=measure, expected=expected)


def fixed_batches(objective: Measurable, data: LatentData, phase: int) -> Iterator[NoisyBatch]:
    """Yield the held-out items of a phase, in batches of one size; item k has the k-th time and noise of its own."""
    held = data.held[phase]
    buckets = data.buckets[phase]
    numbered = sorted(enumerate(held), key=lambda pair: (buckets[pair[1]], pair[0]))
    levels = _levels(len(held))
    for _, group in groupby(numbered, key=lambda pair: buckets[pair[1]]):
        members = list(group)
        for start in range(0, len(members), _ROWS):
            part = members[start : start + _ROWS]
            seeds = [sample_seed(_SEED, 0, row) for row, _ in part]
            made = data.make(phase, [index for _, index in part], seeds, step=0, epoch=0)
            yield objective.draw(made).at(levels[[row for row, _ in part]])


def _levels(count: int) -> Tensor:
    """Return times that fill every bucket evenly, shuffled over the items."""
    times = even_times(count)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(_SEED))
    return times[order]
