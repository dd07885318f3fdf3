"""A filled cache as training reads it: latents by picture and crop, text states by caption, and why one is missing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from torch import Tensor

from sanakit.base.errors import ConfigError
from sanakit.data.cache.about import About, read_about, read_pictures
from sanakit.data.cache.keys import latent_key, text_key
from sanakit.data.cache.store import TensorCache
from sanakit.data.crops import Crop
from sanakit.data.items import Item

__all__ = ["CachedSet"]


class CachedSet:
    """What a cache holds for one set of pictures and one model.

    folder: of the cache. source: the path the set was opened by. latent, text: the marks of the model's encoders
    (`encoders.latent_mark`, `encoders.text_mark`; no text where no states are read). model: its name, for messages.
    Raises ConfigError where the cache is missing, or was filled by other encoders only.
    """

    def __init__(
        self, folder: Path | str, source: Path | str, *, latent: str, text: str | None, model: str
    ) -> None:
        self.cache = TensorCache(folder, read_only=True)
        self.source, self.model = Path(source), model
        self._marks = {"latent": latent} | ({} if text is None else {"text": text})
        self._about = read_about(self.cache.folder)
        self._hashes = read_pictures(self.cache.folder, self.source)
        for kind, mark in self._marks.items():
            self._check_encoder(kind, mark)

    def latent(self, item: Item, crop: Crop) -> Tensor:
        """[C, h, w] as the transformer sees it, in the dtype it was computed in. Raises ConfigError where missing."""
        found = self.cache.get(self._latent_key(item, crop) or "")
        if found is None:
            raise ConfigError(self._lacks(f"{item.key} at {_size(crop)}"))
        return found["latent"]

    def holds(self, item: Item, crop: Crop) -> bool:
        """Whether the latent of a picture, cut so, is there."""
        return (self._latent_key(item, crop) or "") in self.cache

    def states(self, caption: str) -> Tensor:
        """The token states [L, D] of a caption, without padding. Raises ConfigError where missing."""
        found = self.cache.get(text_key(caption, self._marks["text"]))
        if found is None:
            raise ConfigError(self._lacks(f"the caption {caption[:80]!r}"))
        return found["states"]

    def check(self, items: Sequence[Item], crops: Sequence[Crop], captions: Iterable[str]) -> None:
        """Raises ConfigError, saying how many are missing and for which sizes it was filled, before a run begins."""
        missing = [
            (item, crop)
            for item, crop in zip(items, crops, strict=True)
            if (self._latent_key(item, crop) or "") not in self.cache
        ]
        if missing:
            item, crop = missing[0]
            raise ConfigError(
                self._lacks(
                    f"{len(missing)} of {len(items)} pictures ({item.key} at {_size(crop)} is the first)"
                )
            )
        unread = [text for text in captions if text_key(text, self._marks["text"]) not in self.cache]
        if unread:
            raise ConfigError(self._lacks(f"{len(unread)} captions ({unread[0][:80]!r} is the first)"))

    def _latent_key(self, item: Item, crop: Crop) -> str | None:
        picture = self._hashes.get(item.key)
        return None if picture is None else latent_key(picture, crop, self._marks["latent"])

    def _lacks(self, what: str) -> str:
        sizes = self._about[self._marks["latent"]].sizes
        return (
            f"the cache {self.cache.folder} lacks {what}; it was filled for {_some(sizes)}, centre crops: "
            f"run `{self._command}` with the size of this run"
        )

    def _check_encoder(self, kind: str, mark: str) -> None:
        if mark in self._about:
            return
        others = [about for about in self._about.values() if about.kind == kind]
        raise ConfigError(f"the cache {self.cache.folder} {_filled_by(kind, others)}: run `{self._command}`")

    @property
    def _command(self) -> str:
        return f"sanakit data cache {self.source} --model {self.model} --out {self.cache.folder}"


def _filled_by(kind: str, others: Sequence[About]) -> str:
    name = {"latent": "autoencoder", "text": "text encoder"}[kind]
    if not others:
        return f"holds nothing of any {name}"
    return f"was filled by another {name} (that of {others[0].model}), and this model's results differ"


def _size(crop: Crop) -> str:
    return f"{crop.width}x{crop.height}"


def _some(sizes: Sequence[str]) -> str:
    shown = ", ".join(sizes[:4]) + (f" and {len(sizes) - 4} more" if len(sizes) > 4 else "")
    return shown or "no size"
