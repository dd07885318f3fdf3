"""`sanakit evaluate suite FILE`: a model on a set of prompts, by judges and by distance to reference pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sanakit.base.sizes import Size
from sanakit.cli import options as o
from sanakit.cli.batch import EngineOption, GpusOption, WorkersOption, choose_workers, follow
from sanakit.cli.progress import ProgressBar
from sanakit.cli.say import note, notify, say

if TYPE_CHECKING:
    from sanakit.batch.draw import Loading
    from sanakit.batch.items import Item
    from sanakit.batch.run import BatchReport
    from sanakit.batch.workers import Workers
    from sanakit.evaluation.suite_measures import SuiteMeasures
    from sanakit.evaluation.suite_report import Drawing, Report

_MOST_PER_PROMPT = 1000
_PATH = "pictures"

_FileArgument = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="GenEval's .jsonl, DPG-Bench's folder of .txt, MJHQ's meta_data.json, or prompts, one per line.",
        show_default=False,
    ),
]
_PerPromptOption = Annotated[
    int, typer.Option(metavar="N", min=1, max=_MOST_PER_PROMPT, help="Draw N pictures of each prompt.")
]
_JudgeOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="A judge, as of `sanakit evaluate pictures`; may be repeated.",
        show_default="none",
    ),
]
_ReferenceOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER", help="Pictures to measure Frechet and kernel distances to.", show_default=False
    ),
]
_DetectorOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Check the objects of GenEval's prompts by this model of object detection, a folder or a hub id.",
        show_default=False,
    ),
]
_ColoursOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="With --detector: the judge that tells colours, a CLIP.", show_default=False),
]  # fmt: skip
_FeaturesOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="With --reference: the model of transformers in whose features they are measured, a folder or a hub id.",
        show_default=False,
    ),
]


@o.request_options("steps", "guidance", "solver")
def suite(
    file: _FileArgument,
    model: o.ModelOption = None,
    per_prompt: _PerPromptOption = 1,
    judge: _JudgeOption = None,
    detector: _DetectorOption = None,
    colours: _ColoursOption = None,
    reference: _ReferenceOption = None,
    features: _FeaturesOption = None,
    seed: Annotated[
        int, typer.Option(metavar="N", min=0, help="Seed of the first picture of each prompt.")
    ] = 0,
    size: o.SizeOption = None,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder of pictures, page and report; pictures there stay.")
    ] = Path("out/suite"),
    engine: EngineOption = "here",
    workers: WorkersOption = None,
    gpus: GpusOption = None,
    device: o.DeviceOption = None,
    dtype: o.DtypeOption = None,
    fast: o.FastOption = None,
    threads: o.ThreadsOption = None,
    debug: o.DebugOption = False,
    **fields: Any,
) -> None:
    """Draw the prompts of a suite and score the pictures; run again, it draws what is missing and scores anew."""
    from sanakit.batch import Loading
    from sanakit.evaluation.suite_measures import MeasureNames, SuiteMeasures
    from sanakit.evaluation.suite_report import Report, write_report
    from sanakit.evaluation.suites import read_suite

    names = MeasureNames(
        judges=tuple(dict.fromkeys(judge or ())), reference=reference, features=features, detector=detector,
        colours=colours,
    )  # fmt: skip
    drawing = choose_workers(engine, workers, gpus)
    asked = read_suite(file)
    given = o.given_fields(fields) | ({} if size is None else asdict(Size.parse(size)))
    items = asked.items(per_prompt, seed, given)
    options = (("fast", fast), ("threads", threads))
    loading = Loading(name=model or "toybox", device=device, dtype=dtype, options=options)
    measures = SuiteMeasures(names, asked, device, notify)
    last, seconds = _draw(items, out / _PATH, loading, drawing)
    drawn = _there(items, last)
    report = Report(
        suite=asked, per_prompt=per_prompt, request={**given, "seed": seed}, made=last.made,
        scores=_scores(measures, drawn, out / _PATH), distances=measures.distances(drawn, out / _PATH),
        drawing=_drawing(seconds, engine, out, last.made),
    )  # fmt: skip
    write_report(report, out)
    _print(report, len(drawn), len(items))
    say(str(out / "index.html"))
    if len(drawn) < len(items):
        raise typer.Exit(1)


def _scores(measures: SuiteMeasures, drawn: Sequence[Item], folder: Path) -> dict[str, dict[str, float]]:
    """judge -> key -> score."""
    with ProgressBar() as bar:
        return {
            name: dict(bar.follow(f"judging by {name}", rows, len(drawn)))
            for name, rows in measures.judging(drawn, folder)
        }


def _draw(
    items: Sequence[Item], folder: Path, loading: Loading, drawing: Workers
) -> tuple[BatchReport, list[float]]:
    """Draw what is missing; return the last report, and the seconds of each picture that was drawn."""
    from sanakit.batch import run_batch

    seconds: list[float] = []

    def tell(report: BatchReport) -> None:
        if report.last is not None and not report.last.fault:
            seconds.append(report.last.seconds)

    with ProgressBar() as bar:
        report = follow(run_batch(items, folder, loading, drawing, notify), bar, tell)
    for fault in report.faults:
        note(f"{fault.key}: {fault.fault}.")
    return report, seconds


def _there(items: Sequence[Item], report: BatchReport) -> list[Item]:
    """The items whose pictures are there."""
    failed = {fault.key for fault in report.faults}
    return [one for one in items if one.key not in failed]


def _drawing(seconds: Sequence[float], engine: str, out: Path, made: Mapping[str, str]) -> Drawing | None:
    """What drawing took; of an earlier run of the same model if nothing was left to draw. None if nothing is known."""
    from statistics import median

    from sanakit.base.memory import peak_bytes
    from sanakit.evaluation.suite_report import Drawing, earlier_drawing

    if not seconds:
        return earlier_drawing(out / "report.json", made)
    peak = peak_bytes(made.get("device", "cpu")) if engine == "here" else None
    return Drawing(pictures=len(seconds), seconds=median(seconds), peak_bytes=peak)


def _print(report: Report, drawn: int, wanted: int) -> None:
    suite = report.suite
    say(f"{suite.name} ({suite.format}): {len(suite.prompts)} prompts, {drawn} of {wanted} pictures")
    for name in report.scores:
        for group, mean in report.means(name).items():
            say(f"{name:<24} {group:<24} {mean}")
    for line in report.other_lines():
        say(line)
