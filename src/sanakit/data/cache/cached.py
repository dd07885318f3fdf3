"""A filled cache as training reads it: latents by picture and crop, text states by caption, and why one is missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from sanakit.base.errors import ConfigError
from sanakit.data.buckets import Crop
from sanakit.data.cache.index import CachedEncoder, latent_key, read_encoders, read_pictures, text_key
from sanakit.data.cache.store import TensorCache
from sanakit.data.items import Item


class CachedSet:
    """The part of a cache for one set of pictures and one model.

    folder: of the cache. source: the path the set was opened by. latent, text: fingerprints of the model's encoders
    (see `encoders`; text is None if no states are read). model: its name, for messages.
    Raises ConfigError if the cache is missing, or was filled by other encoders only.
    """

    def __init__(
        self, folder: Path | str, source: Path | str, *, latent: str, text: str | None, model: str
    ) -> None:
        self.cache = TensorCache(folder, read_only=True)
        self.source, self.model = Path(source), model
        self._fingerprints = {"latent": latent} | ({} if text is None else {"text": text})
        self._encoders = read_encoders(self.cache.folder)
        self._hashes = read_pictures(self.cache.folder, self.source)
        for kind, fingerprint in self._fingerprints.items():
            self._check_encoder(kind, fingerprint)

    def latent(self, item: Item, crop: Crop) -> Tensor:
        """[C, h, w] as the transformer sees it, in the dtype it was computed in. Raises ConfigError if missing."""
        found = self.cache.get(self._latent_key(item, crop) or "")
        if found is None:
            raise ConfigError(self._missing(f"{item.key} at {_size(crop)}"))
        return found["latent"]

    def holds(self, item: Item, crop: Crop) -> bool:
        """Return whether the latent of this crop of a picture is there."""
        return (self._latent_key(item, crop) or "") in self.cache

    def states(self, caption: str) -> Tensor:
        """Return the token states [L, D] of a caption, without padding. Raises ConfigError if missing."""
        found = self.cache.get(text_key(caption, self._fingerprints["text"]))
        if found is None:
            raise ConfigError(self._missing(f"the caption {caption[:80]!r}"))
        return found["states"]

    def _latent_key(self, item: Item, crop: Crop) -> str | None:
        picture = self._hashes.get(item.key)
        return None if picture is None else latent_key(picture, crop, self._fingerprints["latent"])

    def _missing(self, what: str) -> str:
        sizes = self._encoders[self._fingerprints["latent"]].sizes
        return (
            f"the cache {self.cache.folder} lacks {what}; it was filled for {_some(sizes)}, centre crops: "
            f"run `{self._command}` with the size of this run"
        )

    def _check_encoder(self, kind: str, fingerprint: str) -> None:
        if fingerprint in self._encoders:
            return
        others = [encoder for encoder in self._encoders.values() if encoder.kind == kind]
        raise ConfigError(f"the cache {self.cache.folder} {_filled_by(kind, others)}: run `{self._command}`")

    @property
    def _command(self) -> str:
        return f"sanakit data cache {self.source} --model {self.model} --out {self.cache.folder}"


def _filled_by(kind: str, others: Sequence[CachedEncoder]) -> str:
    name = {"latent": "autoencoder", "text": "text encoder"}[kind]
    if not others:
        return f"holds nothing of any {name}"
    return f"was filled by another {name} (that of {others[0].model}), and this model's results differ"


def _size(crop: Crop) -> str:
    return f"{crop.width}x{crop.height}"


def _some(sizes: Sequence[str]) -> str:
    shown = ", ".join(sizes[:4]) + (f" and {len(sizes) - 4} more" if len(sizes) > 4 else "")
    return shown or "no size"
