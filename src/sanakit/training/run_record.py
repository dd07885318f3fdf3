"""A record of what a run began with, so that a resumed one can say what has changed since.

RUN/set.json.gz   the pictures and captions of its set
RUN/base.json     a fingerprint of the weights of its base model

Batches, captions and held-out pictures are functions of the set, latents and text states of the base model, so a run
that goes on with others is no longer what its config and seed alone would give.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sanakit.base.files import atomic_write
from sanakit.base.json_text import parse_json
from sanakit.data import Item, PictureSet

_NAME = "set.json.gz"
_BASE = "base.json"
_DIGITS = 12


@dataclass(frozen=True, kw_only=True)
class SetChange:
    """Numbers of pictures that a set has gained, lost, or now has with other captions or another size."""

    added: int = 0
    removed: int = 0
    captions: int = 0
    sizes: int = 0

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.captions or self.sizes)

    @property
    def sentence(self) -> str:
        """A sentence about the changes and their meaning; "" if there are none."""
        if not self:
            return ""
        parts = (
            (self.added, "added"), (self.removed, "removed"), (self.captions, "with other captions"),
            (self.sizes, "of another size"),
        )  # fmt: skip
        changes = ", ".join(f"{count} {text}" for count, text in parts if count)
        return (
            f"the set has changed since the run began ({changes}): batches from here on are those of the set as it is "
            "now, and config and seed alone no longer repeat this run"
        )


def set_change(folder: Path, pictures: PictureSet) -> SetChange:
    """Compare a set with RUN/set.json.gz; no change if that is missing or damaged."""
    before, now = _read(folder), _fingerprints(pictures)
    if before is None:
        return SetChange()
    both = [(before[key], now[key]) for key in before.keys() & now.keys()]
    return SetChange(
        added=len(now.keys() - before.keys()),
        removed=len(before.keys() - now.keys()),
        captions=sum(old[1] != new[1] for old, new in both),
        sizes=sum(old[0] != new[0] for old, new in both),
    )


def base_change(folder: Path, name: str, weights: str) -> str:
    """Return a sentence if the base model is not what RUN/base.json says; "" if it is, or if that can't be read.

    weights: its fingerprint; "" if the run has no base model.
    """
    try:
        before = str(parse_json((folder / _BASE).read_bytes())["weights"])
    except (OSError, ValueError, TypeError, KeyError):
        return ""
    if before == weights:
        return ""
    return (
        f"{name} has other weights than when the run began: what was learnt with the former ones goes on with these. "
        "Put those back, or begin a new run"
    )


def keep_record(folder: Path, pictures: PictureSet, weights: str) -> None:
    """Keep what the set and the base model are now. Raises OutputError."""
    text = json.dumps(_fingerprints(pictures), ensure_ascii=True, separators=(",", ":"))
    packed = gzip.compress(text.encode(), mtime=0)
    atomic_write(folder / _NAME, packed)
    atomic_write(folder / _BASE, json.dumps({"weights": weights}).encode())


def _read(folder: Path) -> Mapping[str, list[str]] | None:
    try:
        found = parse_json(gzip.decompress((folder / _NAME).read_bytes()))
        return {str(key): [str(size), str(text)] for key, (size, text) in found.items()}
    except (OSError, EOFError, ValueError, TypeError, AttributeError):
        return None


def _fingerprints(pictures: PictureSet) -> dict[str, list[str]]:
    """Key -> size in pixels, and a hash of the captions with their scores, which decide how they are drawn."""
    return {item.key: [f"{item.width}x{item.height}", _captions(item)] for item in pictures}


def _captions(item: Item) -> str:
    captions = [(caption.text, caption.score) for caption in item.captions]
    return hashlib.sha256(json.dumps(captions).encode()).hexdigest()[:_DIGITS]
