"""Is this set fit to train on? Faults seen while opening, while decoding, and in the set as a whole.

pictures = open_set(path)
examined = collect(pictures, examine(pictures))
report = conclude(pictures, examined, CheckRules(), autoencoder=..., text=...)
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath

from sanakit.autoencoder import AutoencoderConfig
from sanakit.base.errors import PictureError
from sanakit.data.buckets import BucketRule, bucket_for, cut_away, enlargement
from sanakit.data.check_report import KINDS, Captions, CheckReport
from sanakit.data.cost import CountTokens, cache_cost, estimate_tokens
from sanakit.data.duplicates import DISTANCE, ImageHash, ImageHashes, duplicates_in, hash_image, leaks_in
from sanakit.data.items import Fault, PictureSet
from sanakit.text import MAX_TOKENS, TextConfig

_OF_PICTURES = ("leak", "corrupt", "no-caption", "blank", "duplicate", "tiny", "long-caption")
"""Kinds of faults that exclude a picture from the list of sound ones."""

_AHEAD = 8


@dataclass(frozen=True, kw_only=True)
class CheckRules:
    """The limits at which faults are reported.

    Attributes:
        buckets: how sizes are assigned.
        tokens: how many a model reads of a caption, <bos> included.
        enlarge: the factor of enlargement above which a picture is tiny.
        cut: the share of a picture lost to the crop above which it is reported.
        distance: bits of 64 that may differ between copies.
        tolerance: the share of pictures with a fault that does not prevent GO.
        ignore: file endings that need not be read, in lower case without a dot; "none" for files without one.
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
    """The result of decoding a whole set: image hashes, and errors by index of the unreadable pictures."""

    hashes: ImageHashes
    errors: dict[int, str]


def collect(pictures: PictureSet, findings: Iterable[Finding]) -> Examined:
    """Gather the findings of a set."""
    examined = Examined(ImageHashes(len(pictures)), {})
    for finding in findings:
        if finding.image_hash is None:
            examined.errors[finding.index] = finding.error
        else:
            examined.hashes.put(finding.index, finding.image_hash)
    return examined


def conclude(
    pictures: PictureSet,
    examined: Examined,
    rules: CheckRules,
    *,
    autoencoder: AutoencoderConfig,
    text: TextConfig,
    count_tokens: CountTokens | None = None,
    against: tuple[PictureSet, ImageHashes] | None = None,
) -> CheckReport:
    """Make the report. count_tokens: by a model's tokenizer, else lengths are estimated. against: a test set."""
    usable = [n for n, item in enumerate(pictures) if n not in examined.errors and item.captions]
    texts = [caption.text for n in usable for caption in pictures[n].captions]
    lengths = (count_tokens or estimate_tokens)(texts)
    buckets = [bucket_for(pictures[n], rules.buckets) for n in usable]
    faults = [
        *(fault for fault in pictures.faults if not _ignored(fault, rules)),
        *_of_pictures(pictures, examined, rules),
        *_too_long(pictures, usable, lengths, rules.tokens, count_tokens is not None),
        *duplicates_in(pictures, examined.hashes, rules.distance),
        *(leaks_in(pictures, examined.hashes, *against, rules.distance) if against else ()),
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
    """Return the keys of the usable pictures without a fault of their own."""
    faulty = {fault.key for fault in faults if fault.kind in _OF_PICTURES}
    return tuple(pictures[index].key for index in usable if pictures[index].key not in faulty)


def _ignored(fault: Fault, rules: CheckRules) -> bool:
    return fault.kind == "unread" and (PurePosixPath(fault.key).suffix[1:].lower() or "none") in rules.ignore


def _captions(lengths: list[int], limit: int, counted: bool) -> Captions:
    mean = sum(lengths) / max(len(lengths), 1)
    most = max(lengths, default=0)
    return Captions(count=len(lengths), mean_tokens=mean, most_tokens=most, limit=limit, counted=counted)


def _of_pictures(pictures: PictureSet, examined: Examined, rules: CheckRules) -> Iterator[Fault]:
    """Faults of each picture by itself."""
    for index, item in enumerate(pictures):
        key = item.key
        if index in examined.errors:
            yield Fault(key, "corrupt", f"{key}: {examined.errors[index]}")
            continue
        if not item.captions:
            yield Fault(key, "no-caption", key)
        if examined.hashes.blank[index]:
            red, green, blue = examined.hashes.colours[index, 0, 0].tolist()
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
    """Faults for captions that are too long. lengths: of all captions of the usable items, in order."""
    about = "" if counted else "about "
    rest = iter(lengths)
    for index in usable:
        item = pictures[index]
        most = max(next(rest) for _ in item.captions)
        if most > limit:
            text = f"{item.key}: {about}{most} tokens, {limit} are read"
            yield Fault(item.key, "long-caption", text)


@dataclass(frozen=True)
class Finding:
    """The result for one picture: its hash, or why it can't be read."""

    index: int
    image_hash: ImageHash | None
    error: str = ""


def examine(pictures: PictureSet, workers: int = 2) -> Iterator[Finding]:
    """Decode every picture in threads; findings come in order, and closing the generator stops the work."""
    waiting: deque[Future[Finding]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="examine")
    try:
        for index in range(len(pictures)):
            waiting.append(pool.submit(_examine_one, pictures, index))
            if len(waiting) >= _AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _examine_one(pictures: PictureSet, index: int) -> Finding:
    try:
        return Finding(index, hash_image(pictures.read(index)))
    except PictureError as error:
        return Finding(index, None, str(error))
