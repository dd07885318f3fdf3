"""The batches of a transformer: latents and text states from a cache, in the order of the run's phases.

Letters: B samples of this process in a micro-batch, C latent channels, h/w latent position, L tokens, D text width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from sanakit.base.errors import ConfigError
from sanakit.base.seeds import sample_seed
from sanakit.base.text_states import TextStates
from sanakit.data.buckets import Bucket, Crop, crop_for
from sanakit.data.caption_rule import caption_for
from sanakit.data.items import Item, PictureSet
from sanakit.data.sampler import BatchOrder
from sanakit.text.tokenizer import Tokens
from sanakit.training.config import TrainConfig
from sanakit.training.parallel import World
from sanakit.training.tasks.training_set import held_items, phase_buckets


class Latents(Protocol):
    """What `LatentData` reads of a cache; see `CachedSet`."""

    def holds(self, item: Item, crop: Crop) -> bool:
        """Return whether the latent of this crop of a picture is there."""

    def latent(self, item: Item, crop: Crop) -> Tensor:
        """[C, h, w] as the transformer sees it."""

    def states(self, caption: str) -> Tensor:
        """Return the token states [L, D] of a caption, without padding."""


@dataclass(frozen=True, eq=False, kw_only=True)
class LatentBatch:
    """One process's part of a micro-batch.

    Attributes:
        step, phase: of the run.
        x0: latents [B, C, h, w] float32, scaled as the transformer sees them.
        text: states [B, L, D] and mask; the tokens of the captions if the text encoder is trained.
        seeds: of the samples, from which an objective draws times and noise.
        keys, captions: of the items, to be found in the dump of a skipped step.
    """

    step: int
    phase: int
    x0: Tensor
    text: TextStates | Tokens
    seeds: tuple[int, ...]
    keys: tuple[str, ...]
    captions: tuple[str, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class NoisyBatch(LatentBatch):
    """A batch with the times and the noise that an objective drew.

    Attributes:
        noise: [B, C, h, w] float32.
        t: noise levels [B] float32 in 0..1.
    """

    noise: Tensor
    t: Tensor

    def to(self, device: torch.device) -> NoisyBatch:
        """Return the same on a device."""
        moved = {name: getattr(self, name).to(device) for name in ("x0", "noise", "t", "text")}
        return replace(self, **moved)

    def at(self, t: Tensor) -> NoisyBatch:
        """Return the same at other noise levels [B]."""
        return replace(self, t=t)


class LatentData:
    """The micro-batches of a run by number, as a pure function of the config and the set.

    pictures: the set, opened. cached: its latents and text states, filled for every phase. shift: of the base model.
    read: captions as the network reads them; None for the cached states.
    Raises ConfigError if a phase has no full batch, or nothing that is held out can be read.

    Attributes:
        held: the items to validate with, of each phase, as far as they can be read.
    """

    def __init__(
        self,
        config: TrainConfig,
        pictures: PictureSet,
        cached: Latents,
        world: World,
        read: Callable[[Sequence[str]], TextStates | Tokens] | None = None,
    ) -> None:
        self.config, self.pictures, self.cached, self.world = config, pictures, cached, world
        self.read = read or self.cached_states
        self.buckets = [phase_buckets(config, phase, pictures) for phase in config.phases]
        held = held_items(pictures, config.data.held)
        rest = sorted({*range(len(pictures))} - {*held})
        self.held = [self._readable(buckets, held) for buckets in self.buckets]
        self.orders = [
            BatchOrder(buckets, config.batch, config.seed + number, self._readable(buckets, rest))
            for number, buckets in enumerate(self.buckets)
        ]
        if config.validate and not all(self.held):
            raise ConfigError(
                f"none of the {len(held)} pictures that are held out can be read (the first is "
                f"{pictures[held[0]].key}): replace them, or leave out validate"
            )

    def batch(self, number: int) -> LatentBatch:
        """Return this process's part of micro-batch `number`; micro-batches of a step follow each other."""
        config = self.config
        step, micro = divmod(number, config.accumulate)
        phase, inside = config.phase_at(step)
        chosen = self.orders[phase].batch(inside)
        size = config.batch // config.accumulate
        rows = range(micro * size, (micro + 1) * size)[self.world.share(size)]
        seeds = [sample_seed(config.seed, step, row) for row in rows]
        indices = [chosen.indices[row] for row in rows]
        return self.make(phase, indices, seeds, step=step, epoch=chosen.epoch)

    def make(
        self, phase: int, indices: Sequence[int], seeds: Sequence[int], *, step: int, epoch: int
    ) -> LatentBatch:
        """Return items of one bucket, with a seed each, as a batch."""
        config, bucket = self.config, self.buckets[phase][indices[0]]
        items = [self.pictures[index] for index in indices]
        captions = [caption_for(item, config.data.captions, seed=config.seed, epoch=epoch) for item in items]
        x0 = torch.stack([self.cached.latent(item, crop_for(item, bucket)) for item in items]).float()
        return LatentBatch(
            step=step, phase=phase, x0=x0, text=self.read(captions), seeds=tuple(seeds),
            keys=tuple(item.key for item in items), captions=tuple(captions),
        )  # fmt: skip

    def cached_states(self, captions: Sequence[str]) -> TextStates:
        """Return the states of captions [B, L, D], padded to the longest."""
        rows = [self.cached.states(caption).float() for caption in captions]
        parts = [TextStates(row[None], torch.ones(1, len(row), dtype=torch.bool)) for row in rows]
        return TextStates.join(parts)

    def _readable(self, buckets: Sequence[Bucket], indices: Sequence[int]) -> list[int]:
        """Return the items that have a latent, in their order: pictures that can't be read have none."""
        return [
            index
            for index in indices
            if self.cached.holds(self.pictures[index], crop_for(self.pictures[index], buckets[index]))
        ]


def cache_folder(config: TrainConfig) -> Path:
    """Return the folder of latents and text states."""
    return config.data.cache or config.folder / "cache"
