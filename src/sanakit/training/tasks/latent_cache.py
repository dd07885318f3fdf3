"""The cache of a run: latents and text states that frozen encoders make of its pictures and captions."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby

from sanakit.base.errors import PictureError
from sanakit.base.precision import Precision
from sanakit.data import PictureSet
from sanakit.data.buckets import Bucket, crop_for
from sanakit.data.cache import CachedSet, FillReport, TensorCache
from sanakit.data.cache.encoders import latent_fingerprint
from sanakit.data.cache.fill import fill_for_model, open_for_model
from sanakit.data.cache.index import latent_key, picture_hash, read_pictures
from sanakit.data.cache.store import shards_in
from sanakit.training.config import TrainConfig
from sanakit.training.events import Event, Message, Progress, with_messages
from sanakit.training.parallel import World
from sanakit.training.tasks.latents import cache_folder
from sanakit.training.tasks.training_set import phase_buckets
from sanakit.weights import ModelSpec

_HASH_SECONDS = 5.0  # of reading pictures whose hashes are not noted, for the plan
_NAMES = {"latent": "pictures", "text": "captions"}


@dataclass(frozen=True, kw_only=True)
class Missing:
    """Latents that a cache lacks: the (height, width) of each, and how many of them may be there after all."""

    buckets: tuple[Bucket, ...]
    unknown: int


class LatentCacheFiller:
    """Fills the cache of a run; the encoders are loaded only if something is missing."""

    def __init__(
        self, config: TrainConfig, spec: ModelSpec, precision: Precision, pictures: PictureSet
    ) -> None:
        self.config, self.spec, self.precision = config, spec, precision
        self.pictures = pictures
        self.folder = cache_folder(config)

    def count(self) -> tuple[int, int]:
        """(latents that are there, latents wanted) over all phases."""
        missing = self.missing()
        wanted = len(self.pictures) * len(self.config.phases)
        return wanted - len(missing.buckets), wanted

    def missing(self) -> Missing:
        """Count what filling the cache will have to make.

        A picture is known by the hash of its file: noted when the cache was filled for this set, else read now, for
        some seconds. So latents count that another set, or a run that was killed, has left.
        """
        hashes = self._hashes() if shards_in(self.folder) else {}
        keys: Container[str] = TensorCache(self.folder, read_only=True) if hashes else ()
        fingerprint = latent_fingerprint(self.spec) if hashes else ""
        buckets = [
            bucket
            for phase in self.config.phases
            for item, bucket in zip(
                self.pictures, phase_buckets(self.config, phase, self.pictures), strict=True
            )
            if item.key not in hashes
            or latent_key(hashes[item.key], crop_for(item, bucket), fingerprint) not in keys
        ]
        unknown = (len(self.pictures) - len(hashes)) * len(self.config.phases) if hashes else 0
        return Missing(buckets=tuple(buckets), unknown=unknown)

    def _hashes(self) -> dict[str, str]:
        """Key -> hash, for pictures whose hashes are noted, or can be read in time."""
        noted = read_pictures(self.folder, self.pictures.path)
        found, until = {}, time.monotonic() + _HASH_SECONDS
        for index, item in enumerate(self.pictures):
            if item.key in noted:
                found[item.key] = noted[item.key]
            elif time.monotonic() < until:
                with suppress(PictureError):
                    found[item.key] = picture_hash(self.pictures.read(index))
        return found

    def cached(self) -> CachedSet:
        """Open the cache as training reads it. Raises ConfigError if it was filled by other encoders only."""
        return open_for_model(
            self.folder,
            self.pictures.path,
            self.spec,
            name=self.config.base_model,
            texts=not self.config.text.train,
        )

    def fill(self, world: World) -> Iterator[Event]:
        """Encode what is missing; yield progress and messages.

        Every process encodes its share, then the first one looks over all of it, so that the
        cache's own index is complete. Raises OutputError if it can't be written.
        """
        if world.size > 1:
            yield from self._walk(range(len(self.pictures))[world.share(len(self.pictures))])
            world.wait()
        if world.leads:
            yield from self._walk(None)

    def _walk(self, usable: Sequence[int] | None) -> Iterator[Event]:
        """Yield some pictures, or all, at the sizes of every phase."""
        cache = TensorCache(self.folder)
        for phase in self.config.phases:
            yield from messages(
                fill_for_model(
                    self.pictures, phase_buckets(self.config, phase, self.pictures), cache, self.spec,
                    self.precision, name=self.config.base_model, usable=usable, texts=not self.config.text.train,
                )
            )  # fmt: skip


def messages(reports: Iterable[FillReport], names: Mapping[str, str] = _NAMES) -> Iterator[Event]:
    """Progress, a message every few seconds, and one at the end of each kind that was made or skipped.

    names: what the reports of a kind count.
    """
    for kind, walk in groupby(reports, key=lambda report: report.kind):
        last = deque[FillReport](maxlen=1)
        yield from with_messages(_progress(walk, last, f"encoding {names[kind]}"))
        report = last[0]
        if report.made or report.skipped:
            yield Message(step=0, text=f"encoded {_counts(report, names)}")
        for skipped in report.skipped[:5]:
            yield Message(step=0, text=f"passed over: {skipped.key}: {skipped.text}")


def _progress(reports: Iterable[FillReport], last: deque[FillReport], label: str) -> Iterator[Progress]:
    """Yield reports as progress, and leave the last one in `last`."""
    for report in reports:
        last.append(report)
        yield Progress(label=label, done=report.done, total=report.total, remaining=report.remaining)


def _counts(report: FillReport, names: Mapping[str, str]) -> str:
    skipped = f", {len(report.skipped)} can't be read" if report.skipped else ""
    return f"{names[report.kind]}: {report.done} of {report.total}, {report.reused} were there{skipped}"
