"""The report of `sanakit data check` as lines of text; the last one is the verdict."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sanakit.base.echo import printable

if TYPE_CHECKING:
    from sanakit.data import CheckReport
    from sanakit.training.reading import Reading

_SHOWN = 3
_BAR = 40


def lines_of(report: CheckReport, seconds: float, reading: Reading | None = None) -> Iterator[str]:
    """seconds: about how long making the cache takes here. reading: how a model's text encoder reads the captions."""
    yield f"{report.path}: {report.pictures:,} pictures, {report.usable:,} can be read and have a caption"
    yield from _faults(report)
    yield ""
    yield from _buckets(report)
    yield ""
    yield from _captions(report)
    if reading is not None:
        yield f"text encoder: {reading.sentence()}"
    cost = report.cost
    yield (
        f"cache: {_size(cost.latent_bytes)} of latents, {_size(cost.text_bytes)} of text states, "
        f"about {_time(seconds)} to make here (an estimate)"
    )
    yield f"{report.verdict}: {report.sentence}"


def _faults(report: CheckReport) -> Iterator[str]:
    from sanakit.data import KINDS

    for kind, found in report.faults.items():
        yield ""
        yield f"{KINDS[kind].title}: {report.count(kind):,} ({report.share(kind):.1%}); {KINDS[kind].advice}"
        yield from (f"    {printable(fault.text)}" for fault in found[:_SHOWN])
        if len(found) > _SHOWN:
            yield f"    and {len(found) - _SHOWN:,} more; --json FILE lists all"


def _buckets(report: CheckReport) -> Iterator[str]:
    """One line a bucket, from wide to tall, with a bar; the longest bar is the fullest bucket."""
    yield "buckets (width x height)"
    most = max(report.buckets.values(), default=1)
    for (height, width), count in report.buckets.items():
        bar = "█" * max(1, round(_BAR * count / most))
        yield f"{f'{width}x{height}':>11} {count:>9,}  {bar}"


def _captions(report: CheckReport) -> Iterator[str]:
    captions = report.captions
    how = "counted by the model's tokenizer" if captions.counted else "estimated; --model FOLDER counts them"
    yield (
        f"captions: {captions.count:,}, {captions.mean_tokens:.0f} tokens on average, {captions.most_tokens} at most "
        f"of {captions.limit} ({how})"
    )


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
