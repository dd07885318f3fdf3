"""`sanakit data cache`: latents and text states of a set computed once, and a check of what is kept."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sanakit.cli import options as o
from sanakit.cli.models import read_model
from sanakit.cli.say import note, say

if TYPE_CHECKING:
    from sanakit.data.cache.fill import FillReport
    from sanakit.data.cache.store import TensorCache
    from sanakit.weights import ModelSpec

_NOUNS = {"latent": "pictures", "text": "captions"}
_DEFAULT = Path("out/cache")

_PathArgument = Annotated[
    Path | None,
    typer.Argument(help="A folder of pictures, a .tar, or a pattern of shards.", show_default=False),
]
_SizeOption = Annotated[
    list[int] | None,
    typer.Option(
        "--size",
        "--base",
        metavar="N",
        help="Side of the square size in pixels; give it again for more.",
        show_default="the model's own",
    ),
]
_SquareOption = Annotated[
    bool, typer.Option("--square", help="Use square sizes only, without aspect ratios.")
]
_LeastOption = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Join sizes that have fewer pictures than this, as a run with this batch does."
    ),
]
_OnlyOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Encode only the pictures on this list, as `sanakit data filter` writes it.",
        show_default=False,
    ),
]
_OutOption = Annotated[
    Path,
    typer.Option(metavar="FOLDER", help="Folder of the cache; entries that exist are kept and used."),
]
_BatchOption = Annotated[
    int, typer.Option(metavar="N", help="Number of pictures or captions that are encoded together.")
]
_VerifyOption = Annotated[
    bool, typer.Option("--verify", help="Check every byte of the cache at --out, without encoding.")
]


def cache(
    path: _PathArgument = None,
    model: o.ModelOption = None,
    size: _SizeOption = None,
    square: _SquareOption = False,
    least: _LeastOption = None,
    only: _OnlyOption = None,
    out: _OutOption = _DEFAULT,
    batch: _BatchOption = 8,
    device: o.DeviceOption = None,
    dtype: o.DtypeOption = None,
    threads: o.ThreadsOption = None,
    verify: _VerifyOption = False,
    as_json: o.JsonOption = False,
    debug: o.DebugOption = False,
) -> None:
    """Encode a set's pictures and captions with a model's autoencoder and text encoder, once for all runs."""
    from sanakit.base.errors import RequestError

    if verify:
        given = {"PATH": path, "--model": model, "--size": size, "--least": least, "--only": only}
        beside = [name for name, value in given.items() if value is not None] + ["--square"] * square
        if beside:
            raise RequestError(f"--verify checks the cache at --out and takes no {beside[0]}")
        _verify(out, as_json)
        return
    if path is None:
        raise RequestError("say which set to encode: `sanakit data cache PATH --model MODEL`")
    if batch < 1:
        raise RequestError(f"--batch must be 1 or more, not {batch}")
    reports = _fill(
        path,
        "toybox" if model is None else model,
        size,
        square,
        least,
        only,
        out,
        batch,
        device,
        dtype,
        threads,
    )
    _print_reports(reports, out, as_json)


def _fill(
    path: Path,
    model: str,
    size: list[int] | None,
    square: bool,
    least: int | None,
    only: Path | None,
    out: Path,
    batch: int,
    device: str | None,
    dtype: str | None,
    threads: int | None,
) -> list[FillReport]:
    """Return the last report of the pictures, and that of the captions."""
    from sanakit.base.precision import decide
    from sanakit.base.threads import check_threads, on_threads
    from sanakit.data.buckets import BucketRule, assign_buckets, merge_small
    from sanakit.data.cache import TensorCache, fill_for_model
    from sanakit.data.image import ignore_warnings
    from sanakit.data.labels.select import indices_of, read_keys
    from sanakit.data.source import open_set

    ignore_warnings()
    precision, asked = decide(device, dtype), check_threads(threads)
    spec = read_model(model)
    rule = BucketRule(bases=tuple(size or [_own_side(spec)]), square=square)
    pictures = open_set(path)
    usable = None if only is None else indices_of(pictures, read_keys(only), only)
    buckets = assign_buckets(pictures, rule)
    if least is not None:
        buckets = merge_small(buckets, least)
    cache = TensorCache(out)
    _warn(cache)
    walk = fill_for_model(pictures, buckets, cache, spec, precision, name=model, batch=batch, usable=usable)
    return _follow(on_threads(_threads(spec, buckets, batch, asked), walk))


def _threads(spec: ModelSpec, buckets: Sequence[tuple[int, int]], batch: int, asked: int | None) -> int:
    """By the work of one batch of the smallest size."""
    from sanakit.base.threads import choose_threads
    from sanakit.pipeline.threads import encoder_product

    pixels = min((height * width for height, width in buckets), default=0)
    return choose_threads(encoder_product(spec.autoencoder, batch * pixels), asked).count


def _own_side(spec: ModelSpec) -> int:
    return spec.transformer.sample_size * spec.autoencoder.ratio


def _warn(cache: TensorCache) -> None:

    for fault in cache.faults:
        note(f"{fault.text}; it is passed over, and what it held is made anew")


def _follow(walk: Generator[FillReport]) -> list[FillReport]:
    """Encode pictures, then captions, with a bar each; whatever happens, finished entries are written."""
    from sanakit.cli.progress import ProgressBar
    from sanakit.training.signals import interruptible

    last: dict[str, FillReport] = {}
    with interruptible(), closing(walk), ProgressBar() as bar:
        for report in walk:
            bar.update(f"encoding {_NOUNS[report.kind]}", report.done, report.total, report.remaining)
            last[report.kind] = report
    return list(last.values())


def _print_reports(reports: list[FillReport], out: Path, as_json: bool) -> None:
    """Print how many pictures and captions were made, reused and skipped."""
    skipped = [one for report in reports for one in report.skipped]
    if as_json:
        facts: dict[str, Any] = {"cache": str(out)}
        for report in reports:
            facts[_NOUNS[report.kind]] = {
                "made": report.made, "reused": report.reused, "skipped": len(report.skipped),
            }  # fmt: skip
        facts["faults"] = [{"key": one.key, "text": one.text} for one in skipped]
        say(json.dumps(facts))
        return
    for report in reports:
        counts = f"{report.made} made, {report.reused} reused, {len(report.skipped)} skipped"
        say(f"{_NOUNS[report.kind]}: {counts} in {report.seconds:.1f} s")
    for one in skipped[:5]:
        note(f"{one.key}: {one.text}")
    say(str(out))


def _verify(out: Path, as_json: bool) -> None:
    """Print the shards that are not intact; end with exit code 1 if one is broken."""
    from sanakit.cli.progress import ProgressBar
    from sanakit.data.cache.store import verify

    checks = []
    with ProgressBar() as bar:
        for check in verify(out):
            bar.update("checking shards", check.index + 1, check.total)
            checks.append(check)
    states = {
        state: sum(check.state == state for check in checks)
        for state in ("whole", "unsigned", "broken", "draft")
    }
    if as_json:
        faults = [
            {"path": str(check.path), "state": check.state, "text": check.text}
            for check in checks
            if check.text
        ]
        say(json.dumps({"cache": str(out), **states, "faults": faults}))
    else:
        for check in checks:
            if check.text:
                say(f"{check.state:<9} {check.text}")
        entries = sum(check.keys for check in checks)
        say(
            f"{states['whole'] + states['unsigned']} shards with {entries} entries are whole, {states['broken']} broken"
        )
    if states["broken"]:
        raise typer.Exit(1)
