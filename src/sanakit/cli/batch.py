"""`sanakit batch FILE`: a file of requests to a folder of pictures, resumable, on one process, several, or Ray."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sanakit.base.errors import RequestError
from sanakit.base.sizes import Size
from sanakit.cli import options as o
from sanakit.cli.errors import INTERRUPTED
from sanakit.cli.prompts import read_lines
from sanakit.cli.say import note, notify, say

if TYPE_CHECKING:
    from sanakit.batch.run import BatchReport
    from sanakit.batch.workers import Workers
    from sanakit.cli.progress import ProgressBar

ENGINES = ("here", "processes", "ray")

_RequestsArgument = Annotated[
    Path,
    typer.Argument(
        metavar="FILE", help="Requests as JSON, one per line, or prompts; - reads standard input.", show_default=False
    ),
]  # fmt: skip
EngineOption = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="Draw in this process (here), in several (processes), or as a job of Ray Data (ray)."
    ),
]  # fmt: skip
WorkersOption = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=1, max=10_000, help="Number of processes, each with a model.", show_default="1 or 2"
    ),
]  # fmt: skip
GpusOption = Annotated[
    float | None,
    typer.Option(metavar="X", min=0, help="With --engine ray: number of GPUs for each process.", show_default="0"),
]  # fmt: skip


@o.request_options()
def batch(
    requests: _RequestsArgument,
    size: o.SizeOption = None,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder of the pictures; those that are there stay.")
    ] = Path("out/batch"),
    engine: EngineOption = "here",
    workers: WorkersOption = None,
    gpus: GpusOption = None,
    model: o.ModelOption = None,
    parts: o.PartsOption = None,
    config: o.ConfigOption = None,
    like_model: o.LikeModelOption = None,
    weights: o.WeightsOption = None,
    variant: o.VariantOption = None,
    ignore_config_fields: o.IgnoreOption = None,
    decoder: o.DecoderOption = None,
    device: o.DeviceOption = None,
    dtype: o.DtypeOption = None,
    fast: o.FastOption = None,
    threads: o.ThreadsOption = None,
    as_json: o.JsonOption = False,
    debug: o.DebugOption = False,
    **fields: Any,
) -> None:
    """Draw many requests into a folder, a file each; run it again, and it draws what is missing.

    A line holds the fields of a request, such as {"prompt": "a red cube", "seed": 3, "key": "cube"}, or is a prompt.
    Options are for every line that doesn't name that field.
    """
    from sanakit.batch import Loading, read_items, run_batch
    from sanakit.cli.progress import ProgressBar

    chosen = choose_workers(engine, workers, gpus)
    given = o.given_fields(fields) | ({} if size is None else asdict(Size.parse(size)))
    items = read_items(read_lines(requests), given)
    options = {
        "parts": parts, "decoder": decoder, "variant": variant, "fast": fast, "threads": threads,
        "ignore_config_fields": o.parse_fields(ignore_config_fields),
        "hints": o.hints_of(config, like_model, weights),
    }  # fmt: skip
    loading = Loading(name=model or "toybox", device=device, dtype=dtype, options=tuple(options.items()))
    with ProgressBar(quiet=as_json) as bar:
        report = follow(
            run_batch(items, out, loading, chosen, notify), bar, lambda report: _tell(report, out, as_json)
        )
    _conclude(report, out, as_json)


def follow(
    reports: Iterator[BatchReport], bar: ProgressBar, tell: Callable[[BatchReport], object] = lambda _: None
) -> BatchReport:
    """Show how far a batch is until it is over; return its last report. Raises typer.Exit if it is interrupted."""
    last = None
    try:
        for last in reports:
            bar.update("drawing", last.done, last.total, last.remaining)
            tell(last)
    except KeyboardInterrupt:
        notify("sanakit: interrupted; run the same command again, and it goes on.")
        raise typer.Exit(INTERRUPTED) from None
    assert last is not None  # the first comes before anything is drawn
    return last


def choose_workers(engine: str, workers: int | None, gpus: float | None) -> Workers:
    """Who draws. Raises RequestError for options that don't go together, and ConfigError if Ray is missing."""
    from sanakit.batch.workers import draw_here, in_processes

    if engine not in ENGINES:
        raise RequestError(f"--engine is one of {', '.join(ENGINES)}, not {engine[:40]!r}")
    if gpus is not None and engine != "ray":
        raise RequestError("--gpus goes with --engine ray; others take --device")
    if engine == "here":
        if workers not in (None, 1):
            raise RequestError("--workers goes with --engine processes or ray")
        return draw_here
    if engine == "processes":
        return in_processes(workers or 2)
    from sanakit.batch.ray import on_ray

    return on_ray(workers or 2, gpus or 0.0)


def _tell(report: BatchReport, out: Path, as_json: bool) -> None:
    """Print what is just over."""
    if report.last is None:
        if report.there and not as_json:
            note(f"{report.there} of {report.total} pictures are there and stay.")
        return
    one = report.last
    if as_json:
        result = {"fault": one.fault} if one.fault else {"path": str(out / f"{one.key}.png")}
        say(json.dumps({"event": "item", "key": one.key, **result}))
    elif one.fault:
        note(f"{one.key}: {one.fault}.")


def _conclude(report: BatchReport, out: Path, as_json: bool) -> None:
    """Print the sum; exit code 1 if pictures are missing."""
    from sanakit.batch.run import FAILURES

    counts = {
        "drawn": report.done - report.there - len(report.faults), "there": report.there, "failed": len(report.faults)
    }  # fmt: skip
    if as_json:
        say(json.dumps({"event": "done", "folder": str(out), **counts}))
    else:
        say(f"{out}: {', '.join(f'{count} {name}' for name, count in counts.items())} of {report.total}")
    if report.faults:
        if not as_json:
            note(f"{out / FAILURES} says why; run the command again to try those once more.")
        raise typer.Exit(1)
