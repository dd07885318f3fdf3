"""`sanakit evaluate suite FILE`: a model on a set of prompts, by judges and by distance to reference pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sanakit.base.errors import RequestError
from sanakit.base.sizes import Size
from sanakit.cli import options as o
from sanakit.cli.batch import EngineOption, GpusOption, WorkersOption, choose_workers, follow
from sanakit.cli.progress import ProgressBar
from sanakit.cli.say import note, notify, say

if TYPE_CHECKING:
    from sanakit.batch.draw import Loading
    from sanakit.batch.items import Item
    from sanakit.batch.workers import Workers
    from sanakit.evaluation.suites import Suite

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
    typer.Option(metavar="FOLDER", help="Pictures to measure the Frechet distance to.", show_default=False),
]
_FeaturesOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="With --reference: the model of transformers in whose features it is measured, a folder or a hub id.",
        show_default=False,
    ),
]


@o.request_options("steps", "guidance", "solver")
def suite(
    file: _FileArgument,
    model: o.ModelOption = None,
    per_prompt: _PerPromptOption = 1,
    judge: _JudgeOption = None,
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
    from sanakit.evaluation.suite_report import Report, write_report
    from sanakit.evaluation.suites import read_suite

    judges = list(dict.fromkeys(judge or ()))
    if (reference is None) != (features is None):
        raise RequestError("--reference and --features go together: pictures, and the model that reads them")
    if not judges and reference is None:
        raise RequestError("say what to measure: --judge NAME, or --reference and --features")
    drawing = choose_workers(engine, workers, gpus)
    asked = read_suite(file)
    given = o.given_fields(fields) | ({} if size is None else asdict(Size.parse(size)))
    items = asked.items(per_prompt, seed, given)
    options = (("fast", fast), ("threads", threads))
    loading = Loading(name=model or "toybox", device=device, dtype=dtype, options=options)
    measures = _Measures(judges, reference, features, device)
    drawn = _draw(items, out / _PATH, loading, drawing)
    report = Report(
        suite=asked, per_prompt=per_prompt, request={**given, "seed": seed}, made=loading.load().provenance,
        scores=measures.scores(drawn, out / _PATH), distances=measures.distances(drawn, out / _PATH),
    )  # fmt: skip
    write_report(report, out)
    _print(report.suite, len(drawn), len(items))
    for name in judges:
        for group, mean in report.means(name).items():
            say(f"{name:<24} {group:<24} {mean}")
    for name, distance in report.distances.items():
        say(f"Frechet distance in the features of {name}: {distance:.3f}")
    say(str(out / "index.html"))
    if len(drawn) < len(items):
        raise typer.Exit(1)


class _Measures:
    """Judges and features, loaded before anything is drawn. Raises as the loaders do."""

    def __init__(
        self, judges: Sequence[str], reference: Path | None, features: str | None, device: str | None
    ) -> None:
        from sanakit.base.errors import DataError
        from sanakit.base.precision import decide
        from sanakit.data.labels.models import LabelModel, load_scorer
        from sanakit.data.labels.vision import vision_features
        from sanakit.weights import resolve_snapshot

        self.judges = {
            name: load_scorer(LabelModel(task="score", name=name, device=device, dtype="fp32"), notify)
            for name in judges
        }
        self.name, self.references = features or "", list[Path]()
        if reference is not None and features is not None:
            self.references = sorted(
                path for path in reference.rglob("*") if path.suffix.lower() in _SUFFIXES
            )
            if len(self.references) < 2:
                raise DataError(f"{reference} holds fewer than two pictures to measure a distance to")
            self.read = vision_features(resolve_snapshot(features, announce=notify), decide(device, "fp32"))

    def scores(self, drawn: Sequence[Item], folder: Path) -> dict[str, dict[str, float]]:
        """judge -> key -> score."""
        from sanakit.evaluation.pictures import Prompted, score_pictures

        pictures = [Prompted(path=folder / one.file, prompt=one.request.prompt) for one in drawn]
        found = {}
        with ProgressBar() as bar:
            for name, scorer in self.judges.items():
                rows = bar.follow(f"judging by {name}", score_pictures(pictures, scorer), len(pictures))
                found[name] = {one.path.stem: one.score for one in rows}
        return found

    def distances(self, drawn: Sequence[Item], folder: Path) -> dict[str, float]:
        """features -> Frechet distance of the drawn pictures to the reference."""
        import torch

        from sanakit.evaluation import frechet_distance
        from sanakit.evaluation.pictures import open_groups

        if not self.references or len(drawn) < 2:
            return {}
        read = [
            torch.cat([self.read(group) for group in open_groups(paths)])
            for paths in ([folder / one.file for one in drawn], self.references)
        ]
        return {self.name: frechet_distance(*read)}


_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def _draw(items: Sequence[Item], folder: Path, loading: Loading, drawing: Workers) -> list[Item]:
    """Draw what is missing; return the items whose pictures are there."""
    from sanakit.batch import run_batch

    with ProgressBar() as bar:
        report = follow(run_batch(items, folder, loading, drawing, notify), bar)
    for fault in report.faults:
        note(f"{fault.key}: {fault.fault}.")
    failed = {fault.key for fault in report.faults}
    return [one for one in items if one.key not in failed]


def _print(suite: Suite, drawn: int, wanted: int) -> None:
    say(f"{suite.name} ({suite.format}): {len(suite.prompts)} prompts, {drawn} of {wanted} pictures")
