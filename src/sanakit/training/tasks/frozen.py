"""The frozen half of training a transformer: pictures and captions, as latents and text states in a cache."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from sanakit.base.errors import ConfigError
from sanakit.base.precision import Precision
from sanakit.training.cache import CachedSet, FillReport, TensorCache
from sanakit.training.cache.model import fill_for_model, open_for_model
from sanakit.training.config import TrainConfig
from sanakit.training.data import PictureSet
from sanakit.training.data.crops import crop_for
from sanakit.training.parallel import World
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
        return open_for_model(self.folder, self.pictures.path, self.descriptor, name=self.config.base)

    def fill(self, world: World) -> Iterator[Notice]:
        """Encode what is missing; now and then a sentence.

        Every process encodes its share, then the first one looks over all of it, so that what the cache says of itself
        is whole. Raises OutputError where it can't be written.
        """
        if world.size > 1:
            yield from self._walk(range(len(self.pictures))[world.share(len(self.pictures))])
            world.wait()
        if world.leads:
            yield from self._walk(None)

    def _walk(self, usable: Sequence[int] | None) -> Iterator[Notice]:
        """Some pictures, or all, at the sizes of every phase."""
        cache = TensorCache(self.folder)
        for phase in self.config.phases:
            yield from _told(
                fill_for_model(
                    self.pictures, phase_buckets(self.config, phase, self.pictures), cache, self.descriptor,
                    self.precision, name=self.config.base, usable=usable,
                )
            )  # fmt: skip


def _told(reports: Iterable[FillReport]) -> Iterator[Notice]:
    """A sentence every few seconds, and one at the end of each kind where anything was made or skipped."""
    for _, walk in groupby(reports, key=lambda report: report.kind):
        last = time.monotonic()
        for report in walk:
            if time.monotonic() - last > _TOLD_EVERY and report.remaining is not None:
                last = time.monotonic()
                yield Notice(step=0, text=f"encoding {_counts(report)}, {report.remaining / 60:.1f} min left")
        if report.made or report.skipped:
            yield Notice(step=0, text=f"encoded {_counts(report)}")
        for skipped in report.skipped[:5]:
            yield Notice(step=0, text=f"passed over: {skipped.text}")


def _counts(report: FillReport) -> str:
    skipped = f", {len(report.skipped)} can't be read" if report.skipped else ""
    return f"{_NAMES[report.kind]}: {report.done} of {report.total}, {report.reused} were there{skipped}"
