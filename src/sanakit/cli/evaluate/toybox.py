"""`sanakit evaluate toybox`: how often a model draws what the prompt asks for, by the judge that ships."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sanakit.base.sizes import Size
from sanakit.cli import options as o
from sanakit.cli.say import note, notify, say

if TYPE_CHECKING:
    from PIL.Image import Image

    from sanakit.evaluation.toybox import Outcome, Summary
    from sanakit.pipeline.model import Model
    from sanakit.pipeline.request import ImageRequest
    from sanakit.toybox.judging.shipped import ShippedJudge
    from sanakit.toybox.trials import Trial

_MOST = 100_000  # prompts

_PromptsOption = Annotated[
    int, typer.Option(metavar="N", help="Number of prompts, spread over six categories.")
]
_PhrasingsOption = Annotated[
    int,
    typer.Option(metavar="N", help="Number of prompts in phrasings that training lacks, reported apart."),
]
_SeedOption = Annotated[
    int, typer.Option(metavar="N", help="Seed of the prompts; picture i is drawn with seed + i.")
]
_OutOption = Annotated[
    Path,
    typer.Option(
        metavar="FOLDER",
        help="Folder for the page and its pictures; those of an earlier run are replaced.",
    ),
]
_JsonFileOption = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the numbers to this file, too.")
]


@o.request_options("steps", "guidance", "solver")
def toybox(
    model: o.ModelOption = None,
    parts: o.PartsOption = None,
    config: o.ConfigOption = None,
    like_model: o.LikeModelOption = None,
    weights: o.WeightsOption = None,
    prompts: _PromptsOption = 600,
    phrasings: _PhrasingsOption = 120,
    size: o.SizeOption = None,
    seed: _SeedOption = 0,
    dtype: o.DtypeOption = None,
    fast: o.FastOption = None,
    device: o.DeviceOption = None,
    threads: o.ThreadsOption = None,
    out: _OutOption = Path("out/evaluation"),
    json_file: _JsonFileOption = None,
    debug: o.DebugOption = False,
    **fields: Any,
) -> None:
    """Draw prompts that training never saw, and let the judge say how many pictures show what was asked.

    An earlier page in the folder is replaced once the new one is whole.
    """
    from sanakit.base.bounds import MAX_SEED
    from sanakit.base.echo import quoted
    from sanakit.base.errors import RequestError
    from sanakit.base.files import atomic_write, ensure_writable_folder
    from sanakit.base.folders import new_folder
    from sanakit.pipeline.loading import load
    from sanakit.toybox import trials
    from sanakit.toybox.judging.shipped import load_judge

    if prompts < 1:
        raise RequestError(f"prompts must be 1 or more, not {quoted(prompts)}")
    if prompts > _MOST:
        raise RequestError(f"prompts are at most {_MOST}, not {quoted(prompts)}")
    if not 0 <= phrasings <= _MOST:
        raise RequestError(f"phrasings must be from 0 to {_MOST}, not {quoted(phrasings)}")
    if not 0 <= seed <= MAX_SEED - prompts - phrasings:
        raise RequestError(f"the seed must be from 0 to 2^63-1 less the prompts, not {quoted(seed)}")
    shipped = load_judge()
    hints = o.hints_of(config, like_model, weights)
    name = "toybox" if model is None else model
    opened = load(name, device, dtype, parts=parts, hints=hints, fast=fast, threads=threads, announce=notify)
    for text in opened.spec.notes:
        note(text)
    sides = {} if size is None else asdict(Size.parse(size))
    draw = _Drawing(opened, o.given_fields(fields) | sides)
    chosen = [*trials.trials(prompts, seed), *trials.phrasings(phrasings, seed)]
    draw.check(chosen[0], seed)
    if json_file is not None:
        ensure_writable_folder(json_file.parent)
    with new_folder(out, replace=True, ours=_is_of_a_page) as draft:
        found = _run(draw, chosen, shipped, ensure_writable_folder(draft / "pictures"), seed)
        summary = _conclude(found, shipped, draft, f"{opened.name} on Toybox, {prompts} prompts")
    if json_file is not None:
        atomic_write(json_file, (json.dumps(summary.to_json(), indent=1) + "\n").encode())
    _print(summary, shipped, out)


class _Drawing:
    """Draws a trial with one model."""

    def __init__(self, model: Model, fields: dict[str, object]) -> None:
        self.model, self.fields = model, fields

    def check(self, trial: Trial, seed: int) -> None:
        """Raise RequestError if the model can't draw with these options, before anything is drawn."""
        self.model.generate(self._request(trial, seed))

    def __call__(self, trial: Trial, seed: int) -> Image:
        """Return the picture of a trial."""
        return self.model.images(self._request(trial, seed))[0]

    def _request(self, trial: Trial, seed: int) -> ImageRequest:
        from sanakit.pipeline.request import ImageRequest

        return ImageRequest.from_json({"prompt": trial.prompt, "seed": seed, **self.fields})


def _run(
    draw: _Drawing, chosen: list[Trial], shipped: ShippedJudge, folder: Path, seed: int
) -> list[Outcome]:
    from sanakit.cli.progress import ProgressBar
    from sanakit.evaluation.toybox import outcomes

    found: list[Outcome] = []
    with ProgressBar() as bar:
        steps = outcomes(draw, chosen, shipped.network, seed)
        for outcome in bar.follow("drawing and judging", steps, len(chosen)):
            _save(folder / _name(outcome), outcome.picture)
            found.append(outcome)
    return found


def _save(path: Path, picture: Image) -> None:
    from sanakit.base.files import atomic_write

    atomic_write(path, lambda draft: picture.save(draft, format="PNG"))


def _is_of_a_page(name: str) -> bool:
    """Return whether a file in the folder of a page is one that an earlier evaluation wrote."""
    return name == "index.html" or re.fullmatch(r"pictures/\w+-\d{5,}\.png", name) is not None


def _name(outcome: Outcome) -> str:
    return f"{outcome.trial.category}-{outcome.seed:05d}.png"


def _conclude(found: list[Outcome], shipped: ShippedJudge, out: Path, title: str) -> Summary:
    from sanakit.evaluation.page import write_page
    from sanakit.evaluation.toybox import summarise

    summary = summarise(found, shipped.features)
    files = [f"pictures/{_name(outcome)}" for outcome in found]
    write_page(out / "index.html", title, found, files, summary, shipped.accuracy)
    return summary


def _print(summary: Summary, shipped: ShippedJudge, out: Path) -> None:
    from sanakit.evaluation import Share

    for name, share in {"overall": summary.overall, **summary.categories}.items():
        say(f"{name:<18} {share}")
    say(f"{'score':<18} {summary.score:.3f}")
    if summary.frechet is not None:
        say(f"{'frechet distance':<18} {summary.frechet:.3f}   kernel distance {summary.kernel:.4f}")
    say(f"{'edges':<18} {summary.edges:.3f} of the slope of a render's")
    if summary.roundness is not None:
        say(f"{'roundness':<18} spheres are {summary.roundness:.1%} of their radius off a circle (median)")
    for name, share in summary.phrasings.items():
        say(f"{'phrasings' if name == 'overall' else f'  {name}':<20} {share}")
    for condition, table in shipped.accuracy.items():
        words = ", ".join(
            f"{name} {Share(hits=right, n=n).accuracy:.1%}" for name, (right, n) in table.items()
        )
        say(f"the judge itself, {condition}: {words}")
    say(str(out / "index.html"))
