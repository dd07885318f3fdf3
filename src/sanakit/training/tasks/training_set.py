"""The set of a run: opened, cut down to a list of keys and to captioned pictures, and how the run walks over it.

Epochs and tokens are counted from sizes and captions alone: no picture is read or encoded.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import mean

from sanakit.base.errors import ConfigError
from sanakit.data import BatchOrder, PictureSet, open_set, token_counter
from sanakit.data.buckets import Bucket, BucketRule, assign_buckets, merge_small
from sanakit.data.labels import indices_of, read_keys
from sanakit.text import MAX_TOKENS
from sanakit.training.config import TrainConfig
from sanakit.training.sections import RunPhase
from sanakit.weights import ModelSpec

_NAMED = 5
_COUNTED = 2000
"""Captions whose tokens are counted: enough for a mean, and a moment's work."""


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """How a phase of a run walks over its set.

    Attributes:
        steps: of an epoch.
        usable: pictures that may be trained on. never: of them, those that no epoch visits.
        buckets: (height, width) -> usable pictures.
    """

    steps: int
    usable: int
    never: int
    buckets: Mapping[Bucket, int]


def open_training_set(config: TrainConfig) -> PictureSet:
    """Open the pictures that a run may use. Raises DataError if they can't be opened, ConfigError if none is left."""
    pictures = open_set(config.data.path)
    if config.data.keys is not None:
        pictures = pictures.only(indices_of(pictures, read_keys(config.data.keys), config.data.keys))
    _check_held(config, pictures)
    return pictures


def captioned(config: TrainConfig, pictures: PictureSet) -> tuple[PictureSet, tuple[str, ...]]:
    """Return the pictures that are trained on with text, and the keys of those passed over as they have no caption.

    Raises ConfigError if none is left.
    """
    usable = pictures.captioned
    if config.data.uncaptioned == "empty" or len(usable) == len(pictures):
        return pictures, ()
    if not usable:
        raise ConfigError(
            f"none of the {len(pictures)} pictures of {pictures.path} has a caption: write them (docs/captions.md), "
            "or say data.uncaptioned=empty to train without"
        )
    left = pictures.only(usable)
    _check_held(config, left)
    with_text = set(usable)
    return left, tuple(item.key for index, item in enumerate(pictures) if index not in with_text)


def uncaptioned_sentence(keys: tuple[str, ...]) -> str:
    """Return the sentence about pictures that are passed over."""
    named = ", ".join(keys[:_NAMED]) + (" ..." if len(keys) > _NAMED else "")
    plural = "pictures" if len(keys) > 1 else "picture"
    return f"{len(keys):,} {plural} without a caption ({named}); data.uncaptioned=empty trains on them, too"


def _check_held(config: TrainConfig, pictures: PictureSet) -> None:
    if config.data.held >= len(pictures):
        raise ConfigError(f"data.held is {config.data.held}, but the set has {len(pictures)} pictures")


def phase_buckets(config: TrainConfig, phase: RunPhase, pictures: PictureSet) -> list[Bucket]:
    """Return each picture's size in a phase; sizes with less than a batch of pictures join others."""
    rule = BucketRule(bases=(phase.size,), square=config.data.square)
    return merge_small(assign_buckets(pictures, rule), config.batch)


def held_items(pictures: PictureSet, count: int) -> list[int]:
    """Choose `count` items to validate with, by the hash of their keys: stable as the set grows."""
    hashes = {
        index: hashlib.sha256(item.key.encode("utf-8", "surrogatepass")).digest()
        for index, item in enumerate(pictures)
    }
    return sorted(hashes, key=hashes.__getitem__)[:count]


def epochs_of(config: TrainConfig, pictures: PictureSet) -> tuple[Epoch, ...]:
    """Count the epochs of every phase by sizes alone. Raises ConfigError if no bucket of a phase fills a batch."""
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
            Epoch(steps=order.steps_per_epoch, usable=len(usable), never=order.never, buckets=counts)
        )
    return tuple(found)


def caption_tokens(pictures: PictureSet, spec: ModelSpec, batch: int) -> int:
    """Mean number of tokens that a batch of captions is padded to, by the model's own tokenizer."""
    stride = max(1, len(pictures) // _COUNTED)
    captions = [item.captions[0].text for item in pictures[::stride] if item.captions]
    counted = token_counter(spec.tokenizer_folder, spec.dialect.lowercase)(captions)
    counts = [min(count, MAX_TOKENS) for count in counted] or [1]
    groups = [counts[start : start + batch] for start in range(0, len(counts), batch)]
    return round(mean(max(group) for group in groups if len(group) == batch or len(groups) == 1))
