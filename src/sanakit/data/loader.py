"""Decoded batches of pictures in the order of steps, from any step on, read ahead by threads.

A picture that can't be read is replaced by the next item of its bucket, by number (`BatchOrder.following`), and that
one by the next: the replacement depends on the set alone, so all machines agree on it.

with Prefetch(produce, workers=4, ahead=8) as batches:
    for step in range(start, stop):
        train(batches(step))
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Literal, TypeVar

import torch
from torch import Tensor

from sanakit.base.errors import ConfigError, PictureError
from sanakit.base.seeds import hash_uniform
from sanakit.data.buckets import Bucket, Crop, crop_for, picture_tensor
from sanakit.data.items import Fault, PictureSet
from sanakit.data.sampler import Batch, BatchOrder, share

CropRule = Literal["centre", "random"]

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class PictureBatch:
    """The part of a step for one process.

    Attributes:
        step, epoch: from 0.
        bucket: (height, width) in pixels.
        indices: of the items in the set; unreadable pictures are replaced.
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
    """`reader(step)` returns this process's part of the global batch `order.batch(step)`. Close it, or use `with`.

    crops: "centre", or "random": a pure function of (seed, epoch, item). workers, ahead: of `Prefetch`;
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
            raise ConfigError(f"crops are 'centre' or 'random', not {crops!r}")
        share(order.batch(0).indices, rank, world)
        self._pictures, self._order, self._crops = pictures, order, crops
        self._rank, self._world = rank, world
        self._bad: dict[int, Fault] = {}
        self._lock = threading.Lock()
        self._prefetch = Prefetch(self._read, workers=workers, ahead=ahead)

    @property
    def faults(self) -> tuple[Fault, ...]:
        """The pictures that could not be read so far, and why."""
        with self._lock:
            return tuple(self._bad.values())

    def __call__(self, step: int) -> PictureBatch:
        """Return the batch of a step. Raises PictureError if no picture of its bucket can be read."""
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
        """Return the picture of an item, or of the first after it that can be read."""
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
                raise PictureError(f"no picture of the size {width}x{height} can be read{why}")

    def _where(self, epoch: int, index: int) -> float | Literal["centre"]:
        return "centre" if self._crops == "centre" else hash_uniform(self._order.seed, epoch, index)

    def _note(self, index: int, error: PictureError) -> None:
        key = self._pictures[index].key
        with self._lock:
            self._bad[index] = Fault(key, "corrupt", f"{key}: {error}")


class Prefetch(Generic[T]):
    """`produce(step)` for the step that is asked for and the `ahead - 1` after it; a jump cancels the rest.

    produce: called in threads, several at once; its result depends on the step alone. An error in it is raised when
    the step is requested. Raises ConfigError for less than one worker or step.
    """

    def __init__(self, produce: Callable[[int], T], *, workers: int = 2, ahead: int = 4) -> None:
        if workers < 1 or ahead < 1:
            raise ConfigError(f"reading needs 1 worker and 1 step ahead or more, not {workers} and {ahead}")
        self._produce, self._ahead = produce, ahead
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="prefetch")
        self._pending: dict[int, Future[T]] = {}

    def __call__(self, step: int) -> T:
        """Return the result for a step, waiting until it is done."""
        wanted = range(step, step + self._ahead)
        for other in [other for other in self._pending if other not in wanted]:
            self._pending.pop(other).cancel()
        for other in wanted:
            if other not in self._pending:
                self._pending[other] = self._pool.submit(self._produce, other)
        return self._pending.pop(step).result()

    def close(self) -> None:
        """Start nothing more, and wait for running work."""
        self._pending.clear()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Prefetch[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
