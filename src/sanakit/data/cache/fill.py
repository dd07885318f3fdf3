"""Filling a cache: every picture through the autoencoder, every caption through the text encoder; what is there stays.

Both walks are generators of reports and hold one batch and one shard in memory. A walk that is closed, interrupted or
fails writes what it has made so far; where the disk refuses, that is the error, and what lies there stays whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, TypeVar

import torch
from torch import Tensor

from sanakit.base.errors import OutputError, PictureError
from sanakit.data.cache.about import note_pictures
from sanakit.data.cache.encoders import EncodePictures, EncodeTexts
from sanakit.data.cache.keys import latent_key, picture_hash, text_key
from sanakit.data.cache.store import TensorCache
from sanakit.data.crops import crop_for, picture_tensor
from sanakit.data.items import Item, PictureSet

__all__ = ["FillReport", "Skipped", "captions_of", "fill_latents", "fill_texts"]

FLUSH_SECONDS = 120.0
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A picture that could not be encoded, and why."""

    key: str
    text: str


@dataclass(frozen=True, kw_only=True)
class FillReport:
    """How far a walk is: of `total` things `made` were encoded, `reused` were there, `skipped` can't be read.

    remaining: seconds expected, None before anything was made.
    """

    kind: Literal["latent", "text"]
    total: int
    made: int
    reused: int
    skipped: tuple[Skipped, ...]
    seconds: float
    remaining: float | None

    @property
    def done(self) -> int:
        """How many need nothing more."""
        return self.made + self.reused + len(self.skipped)


class _Tally:
    """Counts of a walk; `flush_due` says when its cache should be written."""

    def __init__(self, kind: Literal["latent", "text"], total: int, every: float) -> None:
        self.kind, self.total, self.every = kind, total, every
        self.made = self.reused = 0
        self.skipped: tuple[Skipped, ...] = ()
        self.began = self.flushed = time.monotonic()

    def flush_due(self) -> bool:
        due = time.monotonic() - self.flushed >= self.every
        self.flushed = time.monotonic() if due else self.flushed
        return due

    def report(self) -> FillReport:
        seconds = time.monotonic() - self.began
        left = self.total - self.made - self.reused - len(self.skipped)
        return FillReport(
            kind=self.kind, total=self.total, made=self.made, reused=self.reused, skipped=self.skipped,
            seconds=seconds, remaining=seconds / self.made * left if self.made else None,
        )  # fmt: skip


def fill_latents(
    pictures: PictureSet,
    buckets: Sequence[tuple[int, int]],
    cache: TensorCache,
    mark: str,
    load: Callable[[], EncodePictures],
    *,
    batch: int = 8,
    every: float = FLUSH_SECONDS,
    usable: Sequence[int] | None = None,
) -> Generator[FillReport]:
    """The latent of every picture, cut from the centre for its bucket (height, width); a report after each batch.

    load: gives the encoder, and is called only if something is missing. every: seconds after which a shard is written
    though it is small. usable: the items to encode; all by default. Notes the hashes of the pictures, so that training
    need not read them. Raises OutputError where the cache can't be written.
    """
    chosen = range(len(pictures)) if usable is None else usable
    order = sorted(chosen, key=lambda index: (buckets[index], index))
    tally = _Tally("latent", len(order), every)
    hashes: dict[str, str] = {}
    encode: EncodePictures | None = None
    with _written(cache, lambda: note_pictures(cache.folder, pictures.path, hashes)):
        for _, members in groupby(order, key=lambda index: buckets[index]):
            missing = _missing(pictures, buckets, members, cache, mark, tally, hashes)
            for group in _groups(missing, batch):
                encode = encode or load()
                latents = encode(torch.stack([picture for _, picture in group]))
                for (key, _), latent in zip(group, latents, strict=True):
                    cache.put(key, {"latent": latent})
                tally.made += len(group)
                _flush_when_due(cache, tally)
                yield tally.report()
        yield tally.report()


def _missing(
    pictures: PictureSet,
    buckets: Sequence[tuple[int, int]],
    indices: Iterable[int],
    cache: TensorCache,
    mark: str,
    tally: _Tally,
    hashes: dict[str, str],
) -> Iterator[tuple[str, Tensor]]:
    """Key and pixels of those pictures whose latent is not there; the others are counted."""
    for index in indices:
        item = pictures[index]
        crop = crop_for(item, buckets[index])
        try:
            data = pictures.read(index)
            hashes[item.key] = picture_hash(data)
            key = latent_key(hashes[item.key], crop, mark)
            picture = None if key in cache else picture_tensor(data, crop)
        except PictureError as error:
            tally.skipped = (*tally.skipped, Skipped(key=item.key, text=str(error)))
            continue
        if picture is None:
            tally.reused += 1
        else:
            yield key, picture


def fill_texts(
    captions: Iterable[str],
    cache: TensorCache,
    mark: str,
    load: Callable[[], EncodeTexts],
    *,
    batch: int = 8,
    every: float = FLUSH_SECONDS,
) -> Generator[FillReport]:
    """The token states of every caption, without padding; a report after each batch. Arguments as in `fill_latents`.

    Captions of a batch are of about one length, so that little is computed for padding.
    """
    wanted = {text_key(caption, mark): caption for caption in captions}
    tally = _Tally("text", len(wanted), every)
    missing = sorted((caption, key) for key, caption in wanted.items() if key not in cache)
    missing.sort(key=lambda pair: len(pair[0]))
    tally.reused = len(wanted) - len(missing)
    encode: EncodeTexts | None = None
    with _written(cache, lambda: None):
        for group in _groups(missing, batch):
            encode = encode or load()
            for (_, key), states in zip(group, encode([caption for caption, _ in group]), strict=True):
                cache.put(key, {"states": states})
            tally.made += len(group)
            _flush_when_due(cache, tally)
            yield tally.report()
        yield tally.report()


def captions_of(items: Iterable[Item]) -> list[str]:
    """Every caption of items once, and the empty one, which stands for a dropped caption."""
    return list(dict.fromkeys(["", *(caption.text for item in items for caption in item.captions)]))


def _flush_when_due(cache: TensorCache, tally: _Tally) -> None:
    if tally.flush_due():
        cache.flush()
        cache.refresh()  # what another process has made meanwhile need not be made again


@contextmanager
def _written(cache: TensorCache, note: Callable[[], None]) -> Iterator[None]:
    """Writes what is in memory however the block ends, unless writing is what failed."""
    try:
        yield
    except OutputError:
        raise
    except BaseException:
        cache.flush()
        note()
        raise
    cache.flush()
    note()


def _groups(things: Iterable[T], size: int) -> Iterator[list[T]]:
    group: list[T] = []
    for thing in things:
        group.append(thing)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
