"""How a run walks over its set, from sizes and counts alone: nothing is read or encoded."""

from __future__ import annotations

from collections import Counter
from statistics import mean

from sanakit.base.errors import ConfigError
from sanakit.data import BatchOrder, PictureSet, token_counter
from sanakit.text import MAX_TOKENS
from sanakit.training.config import TrainConfig
from sanakit.training.jobs.job import Visit
from sanakit.training.tasks.latents import held_items, phase_buckets
from sanakit.weights import ModelSpec

_LOOKED_AT = 2000
"""Captions whose tokens are counted: enough for a mean, and a moment's work."""


def visits_of(config: TrainConfig, pictures: PictureSet) -> tuple[Visit, ...]:
    """One per phase. Raises ConfigError where no bucket of a phase fills a batch."""
    held = set(held_items(pictures, config.data.held))
    usable = [index for index in range(len(pictures)) if index not in held]
    found = []
    for phase in config.phases:
        buckets = phase_buckets(config, phase, pictures)
        if config.batch > len(usable):
            raise ConfigError(
                f"batch is {config.batch}, and {len(usable)} pictures are there to train on: they fill no batch of "
                f"{config.batch}; it must be at most {len(usable)}"
            )
        order = BatchOrder(buckets, config.batch, config.seed, usable)
        counts = Counter(buckets[index] for index in usable)
        found.append(
            Visit(steps=order.steps_per_epoch, usable=len(usable), never=order.never, buckets=counts)
        )
    return tuple(found)


def read_words(pictures: PictureSet, spec: ModelSpec, batch: int) -> int:
    """Tokens that a batch of so many captions is padded to, on average, by the model's own tokenizer."""
    stride = max(1, len(pictures) // _LOOKED_AT)
    captions = [item.captions[0].text for item in pictures[::stride] if item.captions]
    counted = token_counter(spec.tokenizer_folder, spec.dialect.lowercase)(captions)
    counts = [min(count, MAX_TOKENS) for count in counted] or [1]
    groups = [counts[start : start + batch] for start in range(0, len(counts), batch)]
    return round(mean(max(group) for group in groups if len(group) == batch or len(groups) == 1))
