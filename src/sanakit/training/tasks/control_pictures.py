"""The control pictures of a run: made of its pictures by an annotator, or files; their latents lie in the same cache.

An annotator is a part of the encoder: a cached latent depends on the picture, its crop, the annotator's name and
settings, and the autoencoder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from sanakit.base.errors import ConfigError
from sanakit.base.precision import Precision
from sanakit.base.units import dtype_name
from sanakit.data import PictureSet, open_set
from sanakit.data.annotators import Annotate, Annotator
from sanakit.data.buckets import Bucket, Crop, crop_for, picture_tensor
from sanakit.data.cache import (
    CachedSet,
    FillReport,
    TensorCache,
    fill_latents,
    latent_fingerprint,
    picture_encoder,
)
from sanakit.data.cache.encoders import EncodePictures
from sanakit.data.cache.index import CachedEncoder, note_encoder
from sanakit.data.image import to_image, to_tensor
from sanakit.data.items import Item
from sanakit.training.config import TrainConfig
from sanakit.training.control_settings import FILES, MODEL
from sanakit.training.events import Event
from sanakit.training.tasks.latent_cache import messages
from sanakit.training.tasks.training_set import phase_buckets
from sanakit.weights import ModelSpec

BESIDE = ".control"
"""What follows the name of a picture in that of its control picture."""

_NAMED = 3


def paired(config: TrainConfig, pictures: PictureSet) -> tuple[PictureSet, PictureSet | None]:
    """Return pictures that have a control picture, and these with the keys and sizes of theirs; None for an annotator.

    Raises ConfigError if a picture has none, DataError if the folder of control pictures can't be opened.
    """
    wanted = config.control
    rows = [row for row, item in enumerate(pictures) if not item.key.endswith(BESIDE)]
    if wanted.annotator != FILES:
        return pictures, None
    others = pictures if wanted.pictures is None else open_set(wanted.pictures)
    ending = BESIDE if wanted.pictures is None else ""
    known = {item.key: row for row, item in enumerate(others)}
    missing = [pictures[row].key for row in rows if pictures[row].key + ending not in known]
    if missing:
        named = ", ".join(missing[:_NAMED]) + (" ..." if len(missing) > _NAMED else "")
        where = f"in {wanted.pictures}" if wanted.pictures else f"beside it, as {missing[0]}{BESIDE}.png"
        raise ConfigError(f"{len(missing)} of {len(rows)} pictures have no control picture {where}: {named}")
    chosen = pictures.only(rows)
    sources = [others.source(known[item.key + ending]) for item in chosen]
    return chosen, PictureSet(Path(f"{others.path}#controls"), list(chosen), sources)


@dataclass(frozen=True, kw_only=True)
class PairedCache:
    """Latents of pictures and of their controls as `LatentData` reads them: a picture without a control is not held."""

    plain: CachedSet
    controls: CachedSet

    def holds(self, item: Item, crop: Crop) -> bool:
        """Return whether both latents are there."""
        return self.plain.holds(item, crop) and self.controls.holds(item, crop)

    def latent(self, item: Item, crop: Crop) -> Tensor:
        """[C, h, w] of the picture."""
        return self.plain.latent(item, crop)

    def control(self, item: Item, crop: Crop) -> Tensor:
        """[C, h, w] of its control."""
        return self.controls.latent(item, crop)

    def states(self, caption: str) -> Tensor:
        """As `CachedSet`."""
        return self.plain.states(caption)


class ControlPictures:
    """What steers the pictures of a run. files: control pictures, index by index; None if an annotator makes them."""

    def __init__(
        self,
        config: TrainConfig,
        spec: ModelSpec,
        precision: Precision,
        pictures: PictureSet,
        files: PictureSet | None,
    ) -> None:
        self.config, self.spec, self.precision = config, spec, precision
        self.pictures = pictures if files is None else files
        self.wanted = config.control

    @property
    def words(self) -> str:
        """What they are, for the plan."""
        if self.wanted.annotator == MODEL:
            return f"made by {self.wanted.model}, once"
        if self.wanted.annotator == FILES:
            return f"files {'beside the pictures' if self.wanted.pictures is None else f'in {self.wanted.pictures}'}"
        return f"made by {Annotator(name=self.wanted.annotator, settings=self.wanted.settings).text}, once"

    @cached_property
    def fingerprint(self) -> str:
        """Of the autoencoder behind the annotator."""
        plain, wanted = latent_fingerprint(self.spec), self.wanted
        if wanted.annotator == FILES:
            return plain
        made = wanted.model or Annotator(name=wanted.annotator, settings=wanted.settings).text
        return hashlib.sha256(f"{plain} behind {wanted.annotator} {made}".encode()).hexdigest()[: len(plain)]

    @cached_property
    def annotate(self) -> Annotate:
        """What makes the control picture of a picture. Raises ConfigError."""
        if self.wanted.annotator == MODEL:
            from sanakit.data.labels.dense import model_annotator
            from sanakit.weights import resolve_snapshot

            return model_annotator(resolve_snapshot(str(self.wanted.model)), self.precision)
        return Annotator(name=self.wanted.annotator, settings=self.wanted.settings).function()

    def caption(self, row: int) -> str:
        """Return the first caption of a picture."""
        captions = self.pictures[row].captions
        return captions[0].text if captions else ""

    def picture(self, row: int, phase: int) -> Image.Image:
        """Return the control picture of a picture, as a phase of the run sees it. Raises PictureError."""
        bucket = phase_buckets(self.config, self.config.phases[phase], self.pictures)[row]
        cut = to_image(picture_tensor(self.pictures.read(row), crop_for(self.pictures[row], bucket)))
        return cut if self.wanted.annotator == FILES else self.annotate(cut)

    def fill(self, folder: Path) -> Iterator[Event]:
        """Encode what the cache lacks; yield progress. Raises OutputError, ConfigError."""
        cache, name = TensorCache(folder), self.config.base_model
        for phase in self.config.phases:
            buckets = phase_buckets(self.config, phase, self.pictures)
            sizes = tuple(f"{width}x{height}" for height, width in sorted(set(buckets)))
            dtype = dtype_name(self.precision.dtype)
            noted = CachedEncoder(kind="latent", model=name, dtype=dtype, sizes=sizes)
            note_encoder(folder, self.fingerprint, noted)
            yield from messages(self._reports(cache, buckets), {"latent": "control pictures"})

    def _reports(self, cache: TensorCache, buckets: Sequence[Bucket]) -> Iterator[FillReport]:
        return fill_latents(self.pictures, buckets, cache, self.fingerprint, self._encoder)

    def _encoder(self) -> EncodePictures:
        encode = picture_encoder(self.spec, self.precision)
        return encode if self.wanted.annotator == FILES else partial(_annotated, self.annotate, encode)

    def cached(self, folder: Path, plain: CachedSet) -> PairedCache:
        """Open the cache as training reads it."""
        controls = CachedSet(
            folder, self.pictures.path, latent=self.fingerprint, text=None, model=self.config.base_model
        )
        return PairedCache(plain=plain, controls=controls)


def _annotated(annotate: Annotate, encode: EncodePictures, pictures: Tensor) -> Tensor:
    """Return the latents [B, C, h, w] of what is made of pictures, uint8 [B, 3, H, W]."""
    return encode(torch.stack([to_tensor(annotate(to_image(picture))) for picture in pictures]))
