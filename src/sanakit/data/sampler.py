"""Which pictures make up global batch n of a set with buckets: a pure function of (seed, n).

It doesn't depend on the machine, so a run that continues on another number of devices, workers or nodes sees
the same global batches; rank r of n takes every n-th picture of each (`share`).

An epoch shuffles all items, deals them to their buckets, cuts each bucket into full batches, and shuffles the batches.
Items that don't fill a batch are left out of this epoch: different ones each time, and fewer than one batch per bucket.
A bucket with fewer items than a batch would never be seen: `merge_small` first moves its items to the nearest bucket.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from sanakit.base.errors import ConfigError
from sanakit.base.seeds import epoch_generator
from sanakit.data.buckets import Bucket


@dataclass(frozen=True)
class Batch:
    """A global batch: its bucket (height, width), the items, and the epoch (from 0) it belongs to."""

    bucket: Bucket
    indices: tuple[int, ...]
    epoch: int


class BatchOrder:
    """The global batches of a run.

    buckets: (height, width) of every item of the set. usable: the items that may be used; all by default.
    Raises ConfigError if no bucket fills a batch.

    Attributes:
        steps_per_epoch: batches of an epoch; the same in every epoch.
        never: usable items that no epoch visits, because their bucket holds less than a batch.
    """

    def __init__(
        self, buckets: Sequence[Bucket], batch: int, seed: int, usable: Sequence[int] | None = None
    ) -> None:
        if batch < 1:
            raise ConfigError(f"a batch holds 1 picture or more, not {batch}")
        self.batch_size, self.seed = batch, seed
        self._items = (
            np.arange(len(buckets)) if usable is None else np.unique(np.asarray(usable, dtype=np.int64))
        )
        self._kinds = tuple(sorted({buckets[index] for index in self._items.tolist()}))
        numbers = {bucket: number for number, bucket in enumerate(self._kinds)}
        self._kind = np.array([numbers[buckets[index]] for index in self._items.tolist()], dtype=np.int64)
        counts = np.bincount(self._kind, minlength=len(self._kinds))
        self.steps_per_epoch = int((counts // batch).sum())
        if self.steps_per_epoch == 0:
            raise ConfigError(
                f"{len(self._items)} pictures in {len(self._kinds)} buckets fill no batch of {batch}: "
                "make the batch smaller, or merge buckets"
            )
        self.never = int(counts[counts < batch].sum())
        self._plan = lru_cache(maxsize=2)(self._make_plan)

    def batch(self, step: int) -> Batch:
        """Return the global batch of a step (from 0)."""
        epoch, position = divmod(step, self.steps_per_epoch)
        kinds, rows = self._plan(epoch)
        return Batch(self._kinds[int(kinds[position])], tuple(rows[position].tolist()), epoch)

    def following(self, index: int) -> int:
        """Return the next usable item after `index` in its bucket, by number, wrapping around."""
        position = int(np.searchsorted(self._items, index))
        members = self._items[self._kind == self._kind[position]]
        return int(members[(np.searchsorted(members, index) + 1) % len(members)])

    def _make_plan(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the bucket number [N] and the items [N, batch] of the N batches of an epoch."""
        generator = epoch_generator(self.seed, epoch)
        shuffled = torch.randperm(len(self._items), generator=generator).numpy()
        dealt = shuffled[np.argsort(self._kind[shuffled], kind="stable")]
        kinds, rows = [], []
        for kind, members in enumerate(np.split(dealt, np.cumsum(np.bincount(self._kind))[:-1])):
            full = len(members) // self.batch_size
            rows.append(members[: full * self.batch_size].reshape(full, self.batch_size))
            kinds.append(np.full(full, kind))
        turn = torch.randperm(self.steps_per_epoch, generator=generator).numpy()
        return np.concatenate(kinds)[turn], self._items[np.concatenate(rows)[turn]]


def share(indices: Sequence[int], rank: int, world: int) -> tuple[int, ...]:
    """Return the part of a global batch for rank `rank` of `world`. Raises ConfigError if it can't be dealt evenly."""
    if not 0 <= rank < world:
        raise ConfigError(f"rank {rank} is not one of {world}")
    if len(indices) % world:
        raise ConfigError(f"a batch of {len(indices)} can't be dealt evenly to {world} processes")
    return tuple(indices[rank::world])
