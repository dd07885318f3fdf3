"""The loss on held-out pictures with fixed noise at fixed times: comparable from one measurement to the next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby

import torch
from torch import Tensor

from sanakit.base.seeds import sample_seed
from sanakit.flow import even_times
from sanakit.training.log import read_journal
from sanakit.training.objectives.objective import Measurable
from sanakit.training.objectives.velocity import loss_by_time
from sanakit.training.tasks.latents import LatentData, NoisyBatch
from sanakit.training.trainer import Hook, Trainer

NAME = "validation"
BUCKETS = 10
RISEN = 2.0
"""So many times its least, the loss of a tenth of the noise levels is no chance: 64 pictures scatter by half."""
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

    def warning(trainer: Trainer, values: Mapping[str, float]) -> str:
        _, inside = data.config.phase_at(max(0, trainer.step - 1))
        begun = trainer.step - 1 - inside
        journal = read_journal(data.config.folder, kind=NAME).items()
        return risen(values, [entry for step, entry in journal if begun < step < trainer.step])

    expected = data.config.data.held / (_FORWARD * data.config.batch)
    return Hook(name=NAME, every=every, run=measure, expected=expected, warning=warning)


def risen(values: Mapping[str, float], earlier: Iterable[Mapping[str, float]]) -> str:
    """Say which tenth of the noise levels has a loss far above its least, "" if none has.

    The mean can fall all the while: a network that forgets the picture, and repeats one answer, is good at high noise.
    values, earlier: figures of a validation, now and before in the same phase.
    """
    told = list(earlier)
    worst, factor, least = "", RISEN, 0.0
    for name in values.keys() - {"loss"}:
        lowest = min((entry[name] for entry in told if name in entry), default=values[name])
        if lowest > 0 and values[name] / lowest > factor:
            worst, factor, least = name, values[name] / lowest, lowest
    if not worst:
        return ""
    return (
        f"{worst} was {least:.5f} before and is {factor:.1f} times that: the run may be forgetting what it knew; look "
        "at the previews, and lower optimizer.lr if they are worse"
    )


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
