"""One model's part in a cache: filling it for a set, and opening it for training, by the model's spec."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from functools import partial
from pathlib import Path

from sanakit.base.precision import Precision
from sanakit.data.cache.about import About, note_encoder
from sanakit.data.cache.cached import CachedSet
from sanakit.data.cache.encoders import latent_mark, picture_encoder, text_encoder, text_mark
from sanakit.data.cache.fill import FillReport, captions_of, fill_latents, fill_texts
from sanakit.data.cache.store import TensorCache
from sanakit.data.items import PictureSet
from sanakit.weights import ModelSpec

__all__ = ["fill_for_model", "open_for_model"]


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
    """Latents, then text states, of all usable pictures; one network is in memory at a time, and only if it is needed.

    buckets: (height, width) of every item of the set. name: what the model is called in the cache's notes. texts: False
    where the text encoder is trained, so that its states are of no use.
    Raises ConfigError where the cache holds results of these networks in another dtype, OutputError, WeightsError.
    """
    usable = range(len(pictures)) if usable is None else usable
    dtype = str(precision.dtype).removeprefix("torch.")
    sizes = tuple(f"{width}x{height}" for height, width in sorted({buckets[index] for index in usable}))
    latent = latent_mark(spec)
    note_encoder(cache.folder, latent, About(kind="latent", model=name, dtype=dtype, sizes=sizes))
    load = partial(picture_encoder, spec, precision)
    if texts:
        text = text_mark(spec)
        note_encoder(cache.folder, text, About(kind="text", model=name, dtype=dtype))
    yield from fill_latents(pictures, buckets, cache, latent, load, batch=batch, usable=usable)
    if not texts:
        return
    captions = captions_of(pictures[index] for index in usable)
    yield from fill_texts(captions, cache, text, partial(text_encoder, spec, precision), batch=batch)


def open_for_model(
    folder: Path | str, source: Path | str, spec: ModelSpec, *, name: str, texts: bool = True
) -> CachedSet:
    """What a cache holds for the set at `source` and a model. Raises ConfigError, see `CachedSet`."""
    text = text_mark(spec) if texts else None
    return CachedSet(folder, source, latent=latent_mark(spec), text=text, model=name)
