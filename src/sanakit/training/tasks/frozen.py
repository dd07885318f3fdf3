"""The frozen half of training a transformer: pictures and captions, as latents and text states in a cache."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from functools import cached_property

from sanakit.base.errors import ConfigError
from sanakit.base.precision import Precision
from sanakit.training.cache import (
    CachedSet,
    FillReport,
    TensorCache,
    fill_latents,
    fill_texts,
    latent_mark,
    text_mark,
)
from sanakit.training.cache.about import About, note_encoder
from sanakit.training.cache.encoders import picture_encoder, text_encoder
from sanakit.training.cache.fill import captions_of
from sanakit.training.config import TrainConfig
from sanakit.training.data import PictureSet
from sanakit.training.data.crops import crop_for
from sanakit.training.report import Notice
from sanakit.training.tasks.latents import cache_folder, phase_buckets
from sanakit.weights import Descriptor

_TOLD_EVERY = 10.0
_NAMES = {"latent": "pictures", "text": "captions"}


class Frozen:
    """The cache of a run, and the encoders that fill it, loaded only where something is missing."""

    def __init__(
        self, config: TrainConfig, descriptor: Descriptor, precision: Precision, pictures: PictureSet
    ) -> None:
        self.config, self.descriptor, self.precision = config, descriptor, precision
        self.pictures = pictures
        self.folder = cache_folder(config)

    @cached_property
    def marks(self) -> dict[str, str]:
        """What the encoders are known by in the cache."""
        return {"latent": latent_mark(self.descriptor), "text": text_mark(self.descriptor)}

    def count(self) -> tuple[int, int]:
        """(latents that are there, latents wanted) over all phases."""
        wanted = len(self.pictures) * len(self.config.phases)
        if not self.folder.is_dir() or not any(self.folder.iterdir()):
            return 0, wanted
        try:
            cached = self.cached()
        except ConfigError:  # filled by other encoders only
            return 0, wanted
        there = sum(
            cached.holds(item, crop_for(item, bucket))
            for phase in self.config.phases
            for item, bucket in zip(
                self.pictures, phase_buckets(self.config, phase, self.pictures), strict=True
            )
        )
        return there, wanted

    def cached(self) -> CachedSet:
        """The cache as training reads it. Raises ConfigError where it was filled by other encoders only."""
        return CachedSet(self.folder, self.pictures.path, model=self.config.base, **self.marks)

    def fill(self) -> Iterator[Notice]:
        """Encode what is missing; now and then a sentence. Raises OutputError where the cache can't be written."""
        cache = TensorCache(self.folder)
        dtype = str(self.precision.dtype).removeprefix("torch.")
        for phase in self.config.phases:
            buckets = phase_buckets(self.config, phase, self.pictures)
            sizes = tuple(dict.fromkeys(f"{width}x{height}" for height, width in buckets))
            about = About(kind="latent", model=self.config.base, dtype=dtype, sizes=sizes)
            note_encoder(self.folder, self.marks["latent"], about)
            yield from _told(
                fill_latents(
                    self.pictures, buckets, cache, self.marks["latent"],
                    lambda: picture_encoder(self.descriptor, self.precision),
                )
            )  # fmt: skip
        note_encoder(self.folder, self.marks["text"], About(kind="text", model=self.config.base, dtype=dtype))
        yield from _told(
            fill_texts(
                captions_of(self.pictures), cache, self.marks["text"],
                lambda: text_encoder(self.descriptor, self.precision),
            )
        )  # fmt: skip


def _told(reports: Iterable[FillReport]) -> Iterator[Notice]:
    """A sentence every few seconds, and one at the end where anything was made or skipped."""
    last, report = time.monotonic(), None
    for report in reports:
        if time.monotonic() - last > _TOLD_EVERY and report.remaining is not None:
            last = time.monotonic()
            yield Notice(step=0, text=f"encoding {_counts(report)}, {report.remaining / 60:.1f} min left")
    if report is not None and (report.made or report.skipped):
        yield Notice(step=0, text=f"encoded {_counts(report)}")
        for skipped in report.skipped[:5]:
            yield Notice(step=0, text=f"passed over: {skipped.text}")


def _counts(report: FillReport) -> str:
    skipped = f", {len(report.skipped)} can't be read" if report.skipped else ""
    return f"{_NAMES[report.kind]}: {report.done} of {report.total}, {report.reused} were there{skipped}"
