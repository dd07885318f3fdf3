"""`sanakit data check PATH`: whether a set of pictures is fit for training; the last line is the verdict."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sanakit.base.echo import printable
from sanakit.base.units import duration_text, size_text
from sanakit.cli.options import DebugOption
from sanakit.cli.say import note, notify, say

if TYPE_CHECKING:
    from rich.console import Console

    from sanakit.data import CheckReport, CountTokens, Examined, PictureSet
    from sanakit.training.caption_reading import CaptionReading

_MODEL = "sana-0.6b-512"
_STOP = 2  # exit code
_SHOWN = 3  # faults of each kind
_BAR = 40  # cells of the longest bar

_IgnoreOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ENDING",
        help="Ignore files with this ending, such as heic, or none for files without one; give it again for more.",
        show_default=False,
    ),
]
_JsonFileOption = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the report to this file, too.")
]
_KeysOption = Annotated[
    Path | None,
    typer.Option(
        "--write-keys",
        metavar="FILE",
        help="List the pictures without a fault, for `data cache --only FILE` and for data.keys=FILE of a run.",
    ),
]

_PathArgument = Annotated[
    str, typer.Argument(help="A folder of pictures, a tar shard, or shards such as a-{000..010}.tar.")
]
_BaseOption = Annotated[
    list[int] | None,
    typer.Option(
        metavar="N", help="Side of the square size in pixels; give it again for more.", show_default="512"
    ),
]
_SquareOption = Annotated[
    bool, typer.Option("--square", help="Use square sizes only, without aspect ratios.")
]
_ModelOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The model to train: a folder, whose tokenizer counts tokens, or a name, for sizes only.",
        show_default=_MODEL,
    ),
]
_AgainstOption = Annotated[
    str | None,
    typer.Option(
        metavar="PATH", help="A test set; its pictures that are also in this set are reported as leaks."
    ),
]
_DistanceOption = Annotated[
    int,
    typer.Option(
        metavar="N", help="Number of the 64 bits of a picture's hash that may differ between copies."
    ),
]
_ToleranceOption = Annotated[
    float, typer.Option(metavar="X", help="Share of pictures, 0 to 1, that may have a fault.")
]
_WorkersOption = Annotated[
    int | None,
    typer.Option(metavar="N", help="Number of threads that read pictures.", show_default="one per core"),
]
_StrictOption = Annotated[
    bool, typer.Option("--strict", help="End with exit code 2 if the verdict is FIX, too.")
]


def check(
    path: _PathArgument,
    base: _BaseOption = None,
    square: _SquareOption = False,
    model: _ModelOption = None,
    against: _AgainstOption = None,
    distance: _DistanceOption = 4,
    tolerance: _ToleranceOption = 0.01,
    workers: _WorkersOption = None,
    ignore: _IgnoreOption = None,
    strict: _StrictOption = False,
    json_file: _JsonFileOption = None,
    keys_file: _KeysOption = None,
    debug: DebugOption = False,
) -> None:
    """Look at every picture and caption of a set, and say GO, FIX or STOP."""
    from sanakit.base.files import ensure_writable_folder
    from sanakit.data import BucketRule, CheckRules, conclude
    from sanakit.pipeline.shapes import shapes_of

    rules = CheckRules(
        buckets=BucketRule(bases=tuple(base or (512,)), square=square), distance=distance, tolerance=tolerance,
        ignore=frozenset(ending.lower().lstrip(".") for given in ignore or () for ending in given.split(",")),
    )  # fmt: skip
    _check_numbers(tolerance, workers)
    shapes = shapes_of(_MODEL if model is None else model, note=note)
    count_tokens = _tokenizer(model)
    for file in (json_file, keys_file):
        if file is not None:
            ensure_writable_folder(file.parent)
    threads = workers or os.cpu_count() or 1
    pictures, examined = _look(path, threads)
    others = _look(against, threads) if against else None
    report = conclude(
        pictures,
        examined,
        rules,
        autoencoder=shapes.autoencoder,
        text=shapes.text,
        count_tokens=count_tokens,
        against=(others[0], others[1].hashes) if others else None,
    )
    seconds = _cache_seconds(report)
    reading = _reading(model, pictures)
    if json_file is not None:
        _write_json(json_file, report, seconds, reading)
    for line in _lines(report, seconds, reading):
        say(line)
    if keys_file is not None:
        _write_keys(keys_file, report)
    if report.verdict == "STOP" or (strict and report.verdict == "FIX"):
        raise typer.Exit(_STOP)


def _write_json(file: Path, report: CheckReport, seconds: float, reading: CaptionReading | None) -> None:
    from sanakit.base.files import atomic_write

    content = report.to_json()
    if reading is not None:
        content["text_encoder"] = reading.to_json()
    content["cache"]["seconds_about"] = seconds
    atomic_write(file, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def _write_keys(file: Path, report: CheckReport) -> None:
    from sanakit.base.errors import DataError
    from sanakit.data.labels.select import write_keys

    if not report.sound:
        raise DataError(f"no picture of {report.path} is without a fault, so {file} was not written")
    unlisted = write_keys(file, report.sound)
    notify(f"{len(report.sound) - len(unlisted):,} of {report.pictures:,} pictures are listed in {file}")
    for key in unlisted[:5]:
        note(f"{key!r} has a line break in its name and can't be listed")


def _check_numbers(tolerance: float, workers: int | None) -> None:
    from sanakit.base.errors import RequestError

    if not 0 <= tolerance <= 1:
        raise RequestError(f"the tolerance is a share from 0 to 1, not {tolerance}")
    if workers is not None and workers < 1:
        raise RequestError(f"workers must be 1 or more, not {workers}")


def _tokenizer(model: str | None) -> CountTokens | None:
    """Return the tokenizer of a model on this machine; None for a mere name, whose files may not be here."""
    from sanakit.data import token_counter
    from sanakit.weights import is_here, read_model_spec, resolve

    if model is None or not is_here(model):
        return None
    found = read_model_spec(resolve(model, announce=notify))
    return token_counter(found.tokenizer_folder, found.dialect.lowercase)


def _reading(model: str | None, pictures: PictureSet) -> CaptionReading | None:
    """Measure how a model on this machine reads the captions with its text encoder; None for a mere name."""
    from sanakit.base.precision import decide
    from sanakit.data.cache import captions_of
    from sanakit.training.caption_reading import read_set
    from sanakit.weights import is_here, read_model_spec, resolve

    if model is None or not is_here(model):
        return None
    found = read_model_spec(resolve(model, announce=notify))
    return read_set(found, captions_of(pictures), decide(None, None))


def _look(path: str, workers: int) -> tuple[PictureSet, Examined]:
    """Open a set and decode all of it, with a bar."""
    from rich.console import Console

    from sanakit.cli.progress import ProgressBar
    from sanakit.data import collect, examine, ignore_warnings, open_set

    ignore_warnings()
    console = Console(stderr=True)
    with _opening(path, console) as status:
        pictures = open_set(path, on_progress=status)
    with ProgressBar() as bar:
        findings = bar.follow(f"looking at {path}", examine(pictures, workers), len(pictures))
        return pictures, collect(pictures, findings)


@contextmanager
def _opening(path: str, console: Console) -> Iterator[Callable[[int], object]]:
    """Return a function that shows the number of pictures found so far, on a terminal."""
    if not console.is_terminal:
        yield lambda count: None
        return
    from rich.markup import escape

    place = escape(printable(path, 60))
    with console.status(f"opening {place}") as status:
        yield lambda count: status.update(f"opening {place}: {count:,} pictures")


def _cache_seconds(report: CheckReport) -> float:
    """About how long this machine would make the cache of a set."""
    from sanakit.base.precision import decide
    from sanakit.training.cost import usual_rate

    precision = decide(None, None)
    return report.cost.seconds(usual_rate(precision.device, precision.dtype))


def _lines(report: CheckReport, seconds: float, reading: CaptionReading | None = None) -> Iterator[str]:
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
        f"cache: {size_text(cost.latent_bytes)} of latents, {size_text(cost.text_bytes)} of text states, "
        f"about {duration_text(seconds)} to make here (an estimate)"
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
