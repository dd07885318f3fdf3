"""Is this set fit to train on? What opening saw, what decoding saw, and what only the set as a whole shows.

pictures = open_set(path)
examined = collect(pictures, examine(pictures))
report = conclude(pictures, examined, CheckRules(), autoencoder=..., text=...)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from sanakit.autoencoder import AutoencoderConfig
from sanakit.data.buckets import BucketRule, bucket_for, cut_away, enlargement
from sanakit.data.copies import copies, leaks
from sanakit.data.cost import cache_cost
from sanakit.data.duplicates import DISTANCE
from sanakit.data.examine import Finding
from sanakit.data.items import Fault, PictureSet
from sanakit.data.lengths import CountTokens, estimate_tokens
from sanakit.data.looks import Looks
from sanakit.data.report import KINDS, Captions, CheckReport
from sanakit.text import MAX_TOKENS, TextConfig

_OF_PICTURES = ("leak", "corrupt", "no-caption", "blank", "duplicate", "tiny", "long-caption")
"""The kinds of faults for which a picture itself is left out of a list of sound ones."""


@dataclass(frozen=True, kw_only=True)
class CheckRules:
    """Where faults begin.

    Attributes:
        buckets: how pictures are dealt to sizes.
        tokens: a model reads so many of a caption, <bos> included.
        enlarge: a picture is tiny that must be enlarged by more than this factor.
        cut: a picture is cropped of which more than this share is left out.
        distance: bits of 64 that may differ between copies.
        tolerance: the share of pictures with a fault that does not stand in the way of GO.
        ignore: endings of files that need not be read, in lower case without a dot; "none" for files without one.
    """

    buckets: BucketRule = BucketRule()
    tokens: int = MAX_TOKENS
    enlarge: float = 1.25
    cut: float = 0.34
    distance: int = DISTANCE
    tolerance: float = 0.01
    ignore: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Examined:
    """What decoding a whole set has shown: looks, and for each picture that can't be read why."""

    looks: Looks
    errors: dict[int, str]


def collect(pictures: PictureSet, findings: Iterable[Finding]) -> Examined:
    """The findings of a set as one."""
    examined = Examined(Looks(len(pictures)), {})
    for finding in findings:
        if finding.look is None:
            examined.errors[finding.index] = finding.error
        else:
            examined.looks.put(finding.index, finding.look)
    return examined


def conclude(
    pictures: PictureSet,
    examined: Examined,
    rules: CheckRules,
    *,
    autoencoder: AutoencoderConfig,
    text: TextConfig,
    count_tokens: CountTokens | None = None,
    against: tuple[PictureSet, Looks] | None = None,
) -> CheckReport:
    """The report. count_tokens: by a model's tokenizer; without it lengths are estimated. against: of a test set."""
    usable = [n for n, item in enumerate(pictures) if n not in examined.errors and item.captions]
    texts = [caption.text for n in usable for caption in pictures[n].captions]
    lengths = (count_tokens or estimate_tokens)(texts)
    buckets = [bucket_for(pictures[n], rules.buckets) for n in usable]
    faults = [
        *(fault for fault in pictures.faults if not _ignored(fault, rules)),
        *_of_pictures(pictures, examined, rules),
        *_too_long(pictures, usable, lengths, rules.tokens, count_tokens is not None),
        *copies(pictures, examined.looks, rules.distance),
        *(leaks(pictures, examined.looks, *against, rules.distance) if against else ()),
    ]
    return CheckReport(
        path=str(pictures.path),
        pictures=len(pictures) + sum(fault.count for fault in pictures.faults if fault.kind == "corrupt"),
        usable=len(usable),
        faults={kind: found for kind in KINDS if (found := tuple(f for f in faults if f.kind == kind))},
        buckets=dict(sorted(Counter(buckets).items(), key=lambda pair: (pair[0][0] / pair[0][1], pair[0]))),
        captions=_captions(lengths, rules.tokens, count_tokens is not None),
        cost=cache_cost(buckets, lengths, autoencoder, text),
        tolerance=rules.tolerance,
        sound=_sound(pictures, usable, faults),
    )


def _sound(pictures: PictureSet, usable: list[int], faults: list[Fault]) -> tuple[str, ...]:
    """The keys of the usable pictures without a fault of their own."""
    faulty = {fault.key for fault in faults if fault.kind in _OF_PICTURES}
    return tuple(pictures[index].key for index in usable if pictures[index].key not in faulty)


def _ignored(fault: Fault, rules: CheckRules) -> bool:
    return fault.kind == "unread" and (PurePosixPath(fault.key).suffix[1:].lower() or "none") in rules.ignore


def _captions(lengths: list[int], limit: int, counted: bool) -> Captions:
    mean = sum(lengths) / max(len(lengths), 1)
    most = max(lengths, default=0)
    return Captions(count=len(lengths), mean_tokens=mean, most_tokens=most, limit=limit, counted=counted)


def _of_pictures(pictures: PictureSet, examined: Examined, rules: CheckRules) -> Iterator[Fault]:
    """What each picture shows by itself."""
    for index, item in enumerate(pictures):
        key = item.key
        if index in examined.errors:
            yield Fault(key, "corrupt", f"{key}: {examined.errors[index]}")
            continue
        if not item.captions:
            yield Fault(key, "no-caption", key)
        if examined.looks.blank[index]:
            red, green, blue = examined.looks.colours[index, 0, 0].tolist()
            yield Fault(key, "blank", f"{key} shows nothing but the colour #{red:02x}{green:02x}{blue:02x}")
        bucket = bucket_for(item, rules.buckets)
        factor, cut = enlargement(item, bucket), cut_away(item, bucket)
        size = f"{key}: {item.width}x{item.height}"
        if factor > rules.enlarge:
            yield Fault(key, "tiny", f"{size}, enlarged {factor:.1f} times for {bucket[1]}x{bucket[0]}")
        if cut > rules.cut:
            yield Fault(key, "cropped", f"{size}, {cut:.0%} is cut away for {bucket[1]}x{bucket[0]}")


def _too_long(
    pictures: PictureSet, usable: list[int], lengths: list[int], limit: int, counted: bool
) -> Iterator[Fault]:
    """lengths: of all captions of the usable items, in order."""
    about = "" if counted else "about "
    rest = iter(lengths)
    for index in usable:
        item = pictures[index]
        most = max(next(rest) for _ in item.captions)
        if most > limit:
            text = f"{item.key}: {about}{most} tokens, {limit} are read"
            yield Fault(item.key, "long-caption", text)
