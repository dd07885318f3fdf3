"""Decoded batches of pictures in the order of steps, from any step on, read ahead by threads.

A picture that can't be read is replaced by the next item of its bucket, by number (`BatchOrder.following`), and that
one by the next: which one it is depends on the set alone, so that all machines see the same.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

import torch
from torch import Tensor

from sanakit.base.errors import ConfigError, PictureError
from sanakit.base.seeds import hash_uniform
from sanakit.data.buckets import Bucket
from sanakit.data.crops import Crop, crop_for, picture_tensor
from sanakit.data.items import Fault, PictureSet
from sanakit.data.order import Batch, BatchOrder, share
from sanakit.data.prefetch import Prefetch

CropRule = Literal["centre", "random"]


@dataclass(frozen=True, kw_only=True)
class PictureBatch:
    """What one process gets of a step.

    Attributes:
        step, epoch: from 0.
        bucket: (height, width) in pixels.
        indices: of the items in the set; replacements stand where bad pictures stood.
        crops: of each picture.
        pixels: uint8 [B, 3, height, width].
    """

    step: int
    epoch: int
    bucket: Bucket
    indices: tuple[int, ...]
    crops: tuple[Crop, ...]
    pixels: Tensor


class PictureReader:
    """`reader(step)` gives this process's part of the global batch `order.batch(step)`. Close it, or use `with`.

    crops: "centre", or "random": a cut that is a pure function of (seed, epoch, item). workers, ahead: of `Prefetch`;
    memory is `ahead` batches. Raises ConfigError.
    """

    def __init__(
        self,
        pictures: PictureSet,
        order: BatchOrder,
        *,
        rank: int = 0,
        world: int = 1,
        crops: CropRule = "centre",
        workers: int = 2,
        ahead: int = 4,
    ) -> None:
        if crops not in ("centre", "random"):
            raise ConfigError(f"crops are 'centre' or 'random', not {crops!r}.")
        share(order.batch(0).indices, rank, world)
        self._pictures, self._order, self._crops = pictures, order, crops
        self._rank, self._world = rank, world
        self._bad: dict[int, Fault] = {}
        self._lock = threading.Lock()
        self._prefetch = Prefetch(self._read, workers=workers, ahead=ahead)

    @property
    def waited(self) -> float:
        """Seconds that the consumer has waited for batches, in all."""
        return self._prefetch.waited

    @property
    def skipped(self) -> int:
        """How many different pictures could not be read so far."""
        return len(self._bad)

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What was wrong with them."""
        with self._lock:
            return tuple(self._bad.values())

    def __call__(self, step: int) -> PictureBatch:
        """The batch of a step. Raises PictureError where no picture of its bucket can be read."""
        return self._prefetch(step)

    def close(self) -> None:
        """Stop reading ahead."""
        self._prefetch.close()

    def __enter__(self) -> PictureReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self, step: int) -> PictureBatch:
        batch = self._order.batch(step)
        read = [self._picture(index, batch) for index in share(batch.indices, self._rank, self._world)]
        indices, crops, pixels = zip(*read, strict=True)
        return PictureBatch(
            step=step,
            epoch=batch.epoch,
            bucket=batch.bucket,
            indices=indices,
            crops=crops,
            pixels=torch.stack(pixels),
        )

    def _picture(self, first: int, batch: Batch) -> tuple[int, Crop, Tensor]:
        """The picture of an item, or of the first after it that can be read."""
        index = first
        while True:
            if index not in self._bad:
                crop = crop_for(self._pictures[index], batch.bucket, self._where(batch.epoch, index))
                try:
                    return index, crop, picture_tensor(self._pictures.read(index), crop)
                except PictureError as error:
                    self._note(index, error)
            index = self._order.following(index)
            if index == first:
                height, width = batch.bucket
                why = f"; the first is {self._bad[first].text}" if first in self._bad else ""
                raise PictureError(f"no picture of the size {width}x{height} can be read{why}.")

    def _where(self, epoch: int, index: int) -> float | Literal["centre"]:
        return "centre" if self._crops == "centre" else hash_uniform(self._order.seed, epoch, index)

    def _note(self, index: int, error: PictureError) -> None:
        key = self._pictures[index].key
        with self._lock:
            self._bad[index] = Fault(key, "corrupt", f"{key}: {error}")
