"""Filling a cache: every picture through the autoencoder, every caption through the text encoder; what exists is kept.

Filling is a generator of reports and holds one batch and one shard in memory. If it is closed, interrupted or fails, it
writes what it has made so far; if the disk refuses, that is the error, and earlier shards stay intact.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Literal, TypeVar

import torch
from torch import Tensor

from sanakit.base.errors import OutputError, PictureError
from sanakit.base.precision import Precision
from sanakit.base.units import dtype_name
from sanakit.data.buckets import crop_for, picture_tensor
from sanakit.data.cache.cached import CachedSet
from sanakit.data.cache.encoders import (
    EncodePictures,
    EncodeTexts,
    latent_fingerprint,
    picture_encoder,
    text_encoder,
    text_fingerprint,
)
from sanakit.data.cache.index import (
    CachedEncoder,
    latent_key,
    note_encoder,
    note_pictures,
    picture_hash,
    text_key,
)
from sanakit.data.cache.store import TensorCache
from sanakit.data.items import Item, PictureSet
from sanakit.weights import ModelSpec

FLUSH_SECONDS = 120.0
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A picture that could not be encoded, and why."""

    key: str
    text: str


@dataclass(frozen=True, kw_only=True)
class FillReport:
    """Progress: of `total` pictures or captions `made` were encoded, `reused` existed, `skipped` can't be read.

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
        """How many are finished."""
        return self.made + self.reused + len(self.skipped)


class _Tally:
    """Counts and times of a fill; `flush_due` tells when the cache should be written."""

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
    fingerprint: str,
    load: Callable[[], EncodePictures],
    *,
    batch: int = 8,
    every: float = FLUSH_SECONDS,
    usable: Sequence[int] | None = None,
) -> Generator[FillReport]:
    """Encode every picture, centre-cropped to its bucket (height, width); yield a report after each batch.

    load: returns the encoder, and is called only if something is missing. every: seconds after which a small shard is
    written, too. usable: the items to encode; all by default. Notes the hashes of the pictures, so that training need
    not read them. Raises OutputError if the cache can't be written.
    """
    chosen = range(len(pictures)) if usable is None else usable
    order = sorted(chosen, key=lambda index: (buckets[index], index))
    tally = _Tally("latent", len(order), every)
    hashes: dict[str, str] = {}
    encode: EncodePictures | None = None
    with written(cache, lambda: note_pictures(cache.folder, pictures.path, hashes)):
        for _, members in groupby(order, key=lambda index: buckets[index]):
            missing = _missing(pictures, buckets, members, cache, fingerprint, tally, hashes)
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
    fingerprint: str,
    tally: _Tally,
    hashes: dict[str, str],
) -> Iterator[tuple[str, Tensor]]:
    """Yield key and pixels of the pictures without a latent; count the others."""
    for index in indices:
        item = pictures[index]
        crop = crop_for(item, buckets[index])
        try:
            data = pictures.read(index)
            hashes[item.key] = picture_hash(data)
            key = latent_key(hashes[item.key], crop, fingerprint)
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
    fingerprint: str,
    load: Callable[[], EncodeTexts],
    *,
    batch: int = 8,
    every: float = FLUSH_SECONDS,
) -> Generator[FillReport]:
    """Encode every caption, without padding; yield a report after each batch. Arguments as in `fill_latents`.

    Captions are sorted by length, so that little is computed for padding.
    """
    wanted = {text_key(caption, fingerprint): caption for caption in captions}
    tally = _Tally("text", len(wanted), every)
    missing = sorted((caption, key) for key, caption in wanted.items() if key not in cache)
    missing.sort(key=lambda pair: len(pair[0]))
    tally.reused = len(wanted) - len(missing)
    encode: EncodeTexts | None = None
    with written(cache):
        for group in _groups(missing, batch):
            encode = encode or load()
            for (_, key), states in zip(group, encode([caption for caption, _ in group]), strict=True):
                cache.put(key, {"states": states})
            tally.made += len(group)
            _flush_when_due(cache, tally)
            yield tally.report()
        yield tally.report()


def captions_of(items: Iterable[Item]) -> list[str]:
    """Return every caption of items once, and the empty one, for classifier-free guidance."""
    return list(dict.fromkeys(["", *(caption.text for item in items for caption in item.captions)]))


def _flush_when_due(cache: TensorCache, tally: _Tally) -> None:
    if tally.flush_due():
        cache.flush()
        cache.refresh()  # results of other processes need not be computed again


@contextmanager
def written(cache: TensorCache, note: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Write pending results however the block ends, unless writing itself failed."""
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


def fill_for_model(
    pictures: PictureSet,
    buckets: Sequence[tuple[int, int]],
    cache: TensorCache,
    spec: ModelSpec,
    precision: Precision,
    *,
    name: str,
    batch: int = 8,
    usable: Sequence[int] | None = None,
    texts: bool = True,
) -> Generator[FillReport]:
    """Encode latents, then text states, of all usable pictures; one network at a time is loaded, only if needed.

    buckets: (height, width) of every item of the set. name: of the model in the cache's notes. texts: False if
    the text encoder is trained, because its states change.
    Raises ConfigError if the cache holds results of these networks in another dtype, OutputError, WeightsError.
    """
    usable = range(len(pictures)) if usable is None else usable
    dtype = dtype_name(precision.dtype)
    sizes = tuple(f"{width}x{height}" for height, width in sorted({buckets[index] for index in usable}))
    latent = latent_fingerprint(spec)
    note_encoder(cache.folder, latent, CachedEncoder(kind="latent", model=name, dtype=dtype, sizes=sizes))
    load = partial(picture_encoder, spec, precision)
    if texts:
        text = text_fingerprint(spec)
        note_encoder(cache.folder, text, CachedEncoder(kind="text", model=name, dtype=dtype))
    yield from fill_latents(pictures, buckets, cache, latent, load, batch=batch, usable=usable)
    if not texts:
        return
    captions = captions_of(pictures[index] for index in usable)
    yield from fill_texts(captions, cache, text, partial(text_encoder, spec, precision), batch=batch)


def open_for_model(
    folder: Path | str, source: Path | str, spec: ModelSpec, *, name: str, texts: bool = True
) -> CachedSet:
    """Open the part of a cache for the set at `source` and a model. Raises ConfigError, see `CachedSet`."""
    text = text_fingerprint(spec) if texts else None
    return CachedSet(folder, source, latent=latent_fingerprint(spec), text=text, model=name)
