"""The result of a check, with its verdict: GO, FIX or STOP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sanakit.data.buckets import Bucket
from sanakit.data.cost import CacheCost
from sanakit.data.items import Fault

Verdict = Literal["GO", "FIX", "STOP"]
Weight = Literal["always", "share", "note"]


@dataclass(frozen=True)
class Kind:
    """A kind of fault: its name in the report, what to do, and when it prevents GO.

    weight: "always"; "share", if it concerns more than the tolerated share of the pictures; "note", never.
    """

    title: str
    advice: str
    weight: Weight


KINDS: Mapping[str, Kind] = {
    "shard": Kind("damaged shards", "copy or pack them again", "always"),
    "leak": Kind("pictures that are in the other set too", "take them out of one of the two", "always"),
    "corrupt": Kind("unreadable pictures", "replace them; training passes them over", "share"),
    "special": Kind("pipes, devices, links and the like", "put files there; they are not read", "share"),
    "unread": Kind(
        "files of unknown types",
        "convert them, or pass --ignore ENDING if they don't matter",
        "share",
    ),
    "no-caption": Kind("pictures without a caption", "caption them; training passes them over", "share"),
    "encoding": Kind("captions that are not UTF-8", "save them as UTF-8; they are not used", "share"),
    "record": Kind("records that can't be used", "put them right; they are not used", "share"),
    "score": Kind("scores that can't be used", "put them right; the captions count as unscored", "share"),
    "twice": Kind("pictures of one name", "rename them; the first is used", "share"),
    "blank": Kind(
        "pictures of a single colour", "take them out; a transparent picture is all white", "share"
    ),
    "duplicate": Kind("copies of another picture", "keep one of each; all are used", "share"),
    "tiny": Kind("pictures that are enlarged", "take larger ones, or a smaller base", "share"),
    "long-caption": Kind("captions that are too long", "shorten them; the end is not read", "share"),
    "recaptioned": Kind(
        "pictures that are there again with another caption", "nothing, if both captions are true", "note"
    ),
    "cropped": Kind("pictures that lose much to the crop", "crop them by hand if it matters", "note"),
    "lost": Kind("texts of pictures that are not there", "nothing, or mend the file names", "note"),
    "moved": Kind(
        "tables with absolute or foreign paths", "nothing, if the right pictures were found", "note"
    ),
    "ignored": Kind("files that are not read", "nothing, or rename them", "note"),
}
"""In the order of the report."""


@dataclass(frozen=True, kw_only=True)
class Captions:
    """Number and length of captions. counted: by a tokenizer; else token counts are estimates."""

    count: int
    mean_tokens: float
    most_tokens: int
    limit: int
    counted: bool


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """The findings of a check.

    Attributes:
        path: of the set.
        pictures: how many there are, unreadable ones too.
        usable: those that can be read and have a caption.
        faults: by kind (see `KINDS`), each with its key and a sentence.
        buckets: (height, width) -> usable pictures.
        captions: of the usable pictures.
        cost: of a cache of the usable pictures.
        tolerance: the share of faults of a kind that does not prevent GO.
        sound: the keys of the pictures that have no faults other than notes.
    """

    path: str
    pictures: int
    usable: int
    faults: Mapping[str, tuple[Fault, ...]]
    buckets: Mapping[Bucket, int]
    captions: Captions
    cost: CacheCost
    tolerance: float
    sound: tuple[str, ...] = ()

    def count(self, kind: str) -> int:
        """Return how many things the faults of a kind describe."""
        return sum(fault.count for fault in self.faults.get(kind, ()))

    def share(self, kind: str) -> float:
        """Faults of a kind per picture."""
        return self.count(kind) / max(self.pictures, 1)

    @property
    def blockers(self) -> tuple[str, ...]:
        """The kinds that keep the verdict from GO."""
        weights = {kind: KINDS[kind].weight for kind in KINDS if self.faults.get(kind)}
        return tuple(
            kind
            for kind, weight in weights.items()
            if weight == "always" or (weight == "share" and self.share(kind) > self.tolerance)
        )

    @property
    def verdict(self) -> Verdict:
        """STOP if less than half of the pictures are usable, FIX if a kind of fault prevents GO, else GO."""
        if self.usable == 0 or self.usable < self.pictures / 2:
            return "STOP"
        return "FIX" if self.blockers else "GO"

    @property
    def sentence(self) -> str:
        """The reason for the verdict."""
        if self.verdict == "STOP":
            return f"only {self.usable:,} of {self.pictures:,} pictures can be read and have a caption."
        reasons = [f"{KINDS[kind].title} ({self.count(kind):,})" for kind in self.blockers]
        if reasons:
            return f"training would run, but put right: {', '.join(reasons)}."
        return f"{self.usable:,} of {self.pictures:,} pictures are ready."

    def to_json(self) -> dict[str, Any]:
        """Return all of it, every fault by name; sizes are width x height."""
        faults = {
            kind: [{"key": fault.key, "text": fault.text, "count": fault.count} for fault in found]
            for kind, found in self.faults.items()
        }
        captions = self.captions
        return {
            "path": self.path,
            "verdict": self.verdict,
            "reason": self.sentence,
            "pictures": self.pictures,
            "usable": self.usable,
            "faults": faults,
            "buckets": {f"{width}x{height}": count for (height, width), count in self.buckets.items()},
            "captions": {
                "count": captions.count,
                "mean_tokens": captions.mean_tokens,
                "most_tokens": captions.most_tokens,
                "limit": captions.limit,
                "counted": captions.counted,
            },
            "cache": {"latent_bytes": self.cost.latent_bytes, "text_bytes": self.cost.text_bytes},
        }
