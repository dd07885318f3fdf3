"""What a transformer is trained on: latents and text states from a cache, in the order of the run's phases.

Letters: B samples of this process in a micro-batch, C latent channels, h/w latent position, L tokens, D text width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from sanakit.base.errors import ConfigError
from sanakit.base.seeds import sample_seed
from sanakit.base.values import TextStates
from sanakit.data.buckets import Bucket, BucketRule, assign_buckets, crop_for, merge_small
from sanakit.data.cache.cached import CachedSet
from sanakit.data.caption_rule import caption_for
from sanakit.data.items import PictureSet
from sanakit.data.sampler import BatchOrder
from sanakit.flow import ShiftedTimes, draw_times
from sanakit.text.tokens import Tokens
from sanakit.training.config import RunPhase, TrainConfig
from sanakit.training.draws import draw
from sanakit.training.parallel import World


@dataclass(frozen=True, eq=False, kw_only=True)
class LatentBatch:
    """One process's part of a micro-batch, with all the chance in it drawn.

    Attributes:
        x0: latents [B, C, h, w] float32, scaled as the transformer sees them.
        noise: [B, C, h, w] float32.
        t: noise levels [B] float32 in 0..1.
        text: states [B, L, D] and mask; the tokens of the captions where the text encoder is trained.
        keys, captions: of the items, for whoever looks at a bad batch.
        phase: of the run.
    """

    phase: int
    x0: Tensor
    noise: Tensor
    t: Tensor
    text: TextStates | Tokens
    keys: tuple[str, ...]
    captions: tuple[str, ...]

    def to(self, device: torch.device) -> LatentBatch:
        """The same on a device."""
        moved = {name: getattr(self, name).to(device) for name in ("x0", "noise", "t", "text")}
        return replace(self, **moved)

    def at(self, t: Tensor) -> LatentBatch:
        """The same at other noise levels [B]."""
        return replace(self, t=t)


class LatentData:
    """The micro-batches of a run by number, as a pure function of the config and the set.

    pictures: the set, opened. cached: its latents and text states, filled for every phase. shift: of the base model.
    read: captions as the network reads them; None for the cached states.
    Raises ConfigError where a phase has no full batch, or nothing that is held out can be read.

    Attributes:
        held: the items to validate with, of each phase, as far as they can be read.
    """

    def __init__(
        self,
        config: TrainConfig,
        pictures: PictureSet,
        cached: CachedSet,
        shift: float,
        world: World,
        read: Callable[[Sequence[str]], TextStates | Tokens] | None = None,
    ) -> None:
        self.config, self.pictures, self.cached, self.world = config, pictures, cached, world
        self.shift = shift
        self.read = read or self._cached_states
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
        """This process's part of micro-batch `number`; micro-batches of a step follow each other."""
        config = self.config
        step, micro = divmod(number, config.accumulate)
        phase, inside = config.phase_at(step)
        chosen = self.orders[phase].batch(inside)
        size = config.batch // config.accumulate
        places = range(micro * size, (micro + 1) * size)[self.world.share(size)]
        seeds = [sample_seed(config.seed, step, place) for place in places]
        indices = [chosen.indices[place] for place in places]
        return self.make(phase, indices, seeds, epoch=chosen.epoch)

    def make(self, phase: int, indices: Sequence[int], seeds: Sequence[int], epoch: int) -> LatentBatch:
        """Items of one bucket, with a seed each, as a batch."""
        config, bucket = self.config, self.buckets[phase][indices[0]]
        items = [self.pictures[index] for index in indices]
        captions = [caption_for(item, config.data.captions, seed=config.seed, epoch=epoch) for item in items]
        x0 = torch.stack([self.cached.latent(item, crop_for(item, bucket)) for item in items]).float()
        t, noise = draw(seeds, tuple(x0.shape[1:]), lambda n, g: self._times(phase, n, g))
        return LatentBatch(
            phase=phase, x0=x0, noise=noise, t=t, text=self.read(captions),
            keys=tuple(item.key for item in items), captions=tuple(captions),
        )  # fmt: skip

    def _cached_states(self, captions: Sequence[str]) -> TextStates:
        """The states of captions, padded to the longest."""
        rows = [self.cached.states(caption).float() for caption in captions]
        parts = [TextStates(row[None], torch.ones(1, len(row), dtype=torch.bool)) for row in rows]
        return TextStates.join(parts)

    def _times(self, phase: int, count: int, generator: torch.Generator) -> Tensor:
        shift = self.config.phases[phase].shift or self.shift
        times = self.config.times
        return draw_times(count, generator, ShiftedTimes(shift), times.density, times.levels)

    def _readable(self, buckets: Sequence[Bucket], indices: Sequence[int]) -> list[int]:
        """Those that have a latent, in their order: pictures that can't be read have none."""
        return [
            index
            for index in indices
            if self.cached.holds(self.pictures[index], crop_for(self.pictures[index], buckets[index]))
        ]


def phase_buckets(config: TrainConfig, phase: RunPhase, pictures: PictureSet) -> list[Bucket]:
    """The size at which every picture is seen in a phase; sizes with less than a batch of pictures join others."""
    rule = BucketRule(bases=(phase.size,), square=config.data.square)
    return merge_small(assign_buckets(pictures, rule), config.batch)


def held_items(pictures: PictureSet, count: int) -> list[int]:
    """`count` items to validate with, by the hash of their keys: when the set grows they stay, but for newcomers."""
    marks = {
        index: hashlib.sha256(item.key.encode("utf-8", "surrogatepass")).digest()
        for index, item in enumerate(pictures)
    }
    return sorted(marks, key=marks.__getitem__)[:count]


def cache_folder(config: TrainConfig) -> Path:
    """Where latents and text states lie."""
    return config.data.cache or config.folder / "cache"
