"""What choosing among N pictures is worth: `python -m recipes.best_of [--steps 4] [--candidates 32] [--prompts 40]`.

Every prompt's candidates are drawn once and read by two judges: the shipped one, and one of another seed and other
scenes (recipes/toybox_second_judge.py). One chooses, the other says whether the chosen picture is right. From the
readings come the curves of N = 1, 2, 4 ... exactly, as means over all choices of N from the candidates, with 95 %
intervals by a bootstrap over prompts. The same command goes on where it was.

    python -m recipes.best_of                                               until one is right, of 32 at most
    python -m recipes.best_of --all                                         all 32
    python -m recipes.best_of --all --model toybox --steps 20 --candidates 1    what they are held against
    python -m recipes.best_of --all --steps 1                               drafts, as of --draft-steps 1
    python -m recipes.best_of --table --all --plot out/best-of.png          curves of what is there

--model may be a folder: `--model runs/recover/0-4-6-7-8-9/1000-steps/model --steps 20 --candidates 8` draws candidates
of a smaller model, and `--table --against toybox:20` holds them against one picture of the whole one.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from recipes.best_of_curves import Curve, Drawn, curve, draft_curve, plot, table, until_curve
from recipes.settings import resumable
from recipes.toybox_second_judge import JUDGE
from sanakit.base.files import atomic_write, ensure_writable_folder
from sanakit.data.labels.toybox import rating
from sanakit.pipeline import ImageRequest, Model, PictureDone, StageDone, StageStarted, load
from sanakit.toybox.judging import Judge, judge, read
from sanakit.toybox.judging.network import judge_input
from sanakit.toybox.judging.shipped import FOLDER, load_judge
from sanakit.toybox.trials import Trial, trials

RUNS = Path("runs/best-of")
JUDGES = {"shipped": FOLDER, "second": JUDGE}
SEEDS = 1000
"""Candidate k of prompt i has the seed 1000 i + k."""
STAGES = ("denoise", "decode")
TOGETHER = 8
UNTIL = 4
"""As many are drawn at once without --all."""
DRAFT = 1
"""Steps of drafts."""


def folder_of(model: str, steps: int) -> Path:
    """Where pictures and readings lie."""
    return RUNS / f"{named(model)}-{steps}"


def named(model: str) -> str:
    """A model's name, or its folder below runs in one word."""
    parts = Path(model).parts
    return "-".join(parts[1:] if parts[0] == "runs" else parts[-1:])


def draw(
    model: Model, steps: int, count: int, prompts: Sequence[Trial], folder: Path, until: bool = False
) -> Iterator[int]:
    """Draw the candidates that are missing; yield the number of candidates of each prompt.

    until: no more than until the shipped judge finds one right.
    """
    network = load_judge().network
    for number, trial in enumerate(prompts):
        own, told = folder / f"{number:03d}", drawn_of(folder, number)
        while told["count"] < count and not (until and any(readings(network, trial, own, told["count"])[1])):
            first, more = told["count"], min(model.together, count - told["count"])
            seconds = draw_prompt(model, steps, trial, SEEDS * number, range(first, first + more), own)
            told = {"count": first + more, "seconds": added(told["seconds"], seconds)}
            atomic_write(own.with_suffix(".json"), json.dumps(told).encode())
        yield told["count"]


def drawn_of(folder: Path, number: int) -> dict[str, Any]:
    """count: candidates of a prompt that are there. seconds: stage -> that they took."""
    path = folder / f"{number:03d}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"count": 0, "seconds": {}}
    return found


def added(some: Mapping[str, float], more: Mapping[str, float]) -> dict[str, float]:
    """Sums by name."""
    return {name: some.get(name, 0.0) + more.get(name, 0.0) for name in {*some, *more}}


def draw_prompt(
    model: Model, steps: int, trial: Trial, seed: int, numbers: range, folder: Path
) -> dict[str, float]:
    """Write some candidates of a prompt, of which number 0 has the seed; return the seconds of each stage.

    They are the process's own, so that they mean something beside other work: on one thread, those of an idle core.
    """
    ensure_writable_folder(folder)
    seconds, begun = dict[str, float](), time.process_time()
    request = ImageRequest(prompt=trial.prompt, seed=seed + numbers.start, steps=steps, count=len(numbers))
    for event in model.generate(request):
        if isinstance(event, StageStarted):
            begun = time.process_time()
        elif isinstance(event, StageDone) and event.stage in STAGES:
            seconds[event.stage] = seconds.get(event.stage, 0.0) + time.process_time() - begun
        elif isinstance(event, PictureDone):
            event.image.save(folder / f"{numbers[event.index]:02d}.png")
    return seconds


@torch.no_grad()
def readings(network: Judge, trial: Trial, folder: Path, count: int) -> tuple[list[float], list[bool]]:
    """What a judge thinks of the candidates of a prompt: its scores, as of `--judge toybox`, and which are right."""
    if not count:
        return [], []
    pictures = torch.cat([judge_input(Image.open(folder / f"{k:02d}.png")) for k in range(count)])
    verdicts = [judge(trial.spec, found) for found in read(network, pictures)[0]]
    return [rating(verdict) for verdict in verdicts], [verdict.correct for verdict in verdicts]


def read_drawn(model: str, steps: int, prompts: Sequence[Trial]) -> Drawn:
    """Read the candidates of all prompts with every judge that is there."""
    folder = folder_of(model, steps)
    told = [drawn_of(folder, number) for number in range(len(prompts))]
    total = sum(one["count"] for one in told)
    scores, right = dict[str, list[list[float]]](), dict[str, list[list[bool]]]()
    begun = time.process_time()
    for name in judges():
        network = load_judge(JUDGES[name]).network
        rows = [
            readings(network, trial, folder / f"{number:03d}", one["count"])
            for number, (trial, one) in enumerate(zip(prompts, told, strict=True))
        ]
        scores[name], right[name] = [row[0] for row in rows], [row[1] for row in rows]
    seconds = {stage: sum(one["seconds"].get(stage, 0.0) for one in told) / total for stage in STAGES}
    seconds["judge"] = (time.process_time() - begun) / (len(scores) * total)
    return Drawn(scores=scores, right=right, seconds=seconds)


def judges() -> list[str]:
    """The names of those that are there."""
    return [name for name, where in JUDGES.items() if (where / "judge.json").exists()]


def is_drawn(model: str, steps: int, prompts: int) -> bool:
    """Whether there are candidates of so many prompts."""
    return (folder_of(model, steps) / f"{prompts - 1:03d}.json").exists()


def all_curves(
    prompts: Sequence[Trial], model: str, steps: int, most: int | None, others: Sequence[tuple[str, int]]
) -> dict[str, Curve]:
    """Name -> curve: of the model by each judge's choice, of drafts in one step, of other models.

    most: candidates of a prompt at which drawing ends, if they are drawn until one is right; None if all were drawn.
    """
    full, name = read_drawn(model, steps, prompts), label(model, steps)
    names = list(full.scores)
    chooser, scorer = names[-1], names[0]
    if most is not None:
        return {
            f"{name}, until the shipped judge finds one right; the {who} one scores": until_curve(
                full, scorer, who, most
            )
            for who in names
        }
    found = {f"{name}: the {chooser} judge chooses, the {scorer} one scores": curve(full, chooser, scorer)}
    if chooser != scorer:
        found[f"{name}: the other way round"] = curve(full, scorer, chooser)
        found[f"{name}: the {scorer} judge does both"] = curve(full, scorer, scorer)
    if steps != DRAFT and is_drawn(model, DRAFT, len(prompts)):
        drafts = read_drawn(model, DRAFT, prompts)
        found[f"{name}, chosen by drafts in {DRAFT}"] = draft_curve(drafts, full, chooser, scorer)
    for against, count in others:
        if is_drawn(against, count, len(prompts)):
            found[label(against, count)] = curve(read_drawn(against, count, prompts), chooser, scorer)
    return found


def label(model: str, steps: int) -> str:
    """A model with its steps, for people."""
    return f"{named(model)}, {steps} step{'s' if steps > 1 else ''}"


def other(text: str) -> tuple[str, int]:
    """A model and its number of steps, as --against says them: `toybox:20`."""
    name, _, steps = text.rpartition(":")
    if not name or not steps.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not MODEL:STEPS")
    return name, int(steps)


@resumable
def main() -> None:
    """Draw what is missing, or print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="toybox-sprint")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--candidates", type=int, default=32)
    parser.add_argument("--prompts", type=int, default=40)
    parser.add_argument(
        "--all", action="store_true", help="all candidates, not until the shipped judge finds one right"
    )
    parser.add_argument("--table", action="store_true", help="print what is there, of all these models")
    parser.add_argument(
        "--against",
        metavar="MODEL:STEPS",
        nargs="*",
        type=other,
        default=[("toybox", 20)],
        help="with --table: models that it is held against",
    )
    parser.add_argument("--plot", type=Path, help="with --table: draw it")
    given = parser.parse_args()
    prompts = trials(given.prompts)
    if not given.table:
        model = load(given.model, together=min(TOGETHER if given.all else UNTIL, given.candidates))
        folder = ensure_writable_folder(folder_of(given.model, given.steps))
        drawn = draw(model, given.steps, given.candidates, prompts, folder, not given.all)
        for number, count in enumerate(drawn, start=1):
            print(f"prompt {number}/{len(prompts)}: {count} candidates", flush=True)
        return
    most = None if given.all else given.candidates
    curves = all_curves(prompts, given.model, given.steps, most, given.against)
    print(table(curves))
    if given.plot is not None:
        plot(given.plot, curves)


if __name__ == "__main__":
    main()
