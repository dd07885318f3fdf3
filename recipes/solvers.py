"""Flow-DPM-Solver against Euler on the shipped model: `python -m recipes.solvers [--prompts 150] [--model toybox]`.

For each solver and number of steps: how many prompts are drawn right, and how far the pictures are from those that the
same noise gives in very many steps. Cells that were measured are kept in runs/solvers; the table is Markdown.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from statistics import mean

from PIL import Image

from recipes.settings import resumable
from sanakit import evaluation
from sanakit.base.files import atomic_write
from sanakit.evaluation import Share
from sanakit.evaluation.toybox import Outcome, outcomes, to_tensor
from sanakit.pipeline import ImageRequest, Model, load
from sanakit.toybox.judging.shipped import load_judge
from sanakit.toybox.trials import Trial, trials

RUNS = Path("runs/solvers")  # a folder a model
SOLVERS = {"dpm2": "Flow-DPM-Solver++, order 2", "euler": "Euler"}
STEPS = (5, 8, 14, 20, 50)
CONVERGED = 200
COMPARED = 30
"""Prompts whose pictures are also drawn in `CONVERGED` steps."""
EQUAL = 78.13
"""dB at which two 8-bit pictures differ by one step in every thousandth value."""


def every_cell() -> list[tuple[str, int]]:
    """(solver, steps), in the order in which they are measured."""
    return [(solver, steps) for steps, solver in product(STEPS, SOLVERS)]


def draw(model: Model, trial: Trial, seed: int, solver: str, steps: int) -> Image.Image:
    """A prompt's picture; the seed fixes its noise, whatever draws it."""
    return model.images(ImageRequest(prompt=trial.prompt, seed=seed, solver=solver, steps=steps))[0]


def psnr(one: Image.Image, other: Image.Image) -> float:
    """Of two pictures, in dB; equal ones, which have none, count as `EQUAL`."""
    pair = [to_tensor(picture)[None] / 255 for picture in (one, other)]
    return min(EQUAL, float(evaluation.psnr(*pair)))


def kept_in(model: Model) -> Path:
    """The folder of a model's cells."""
    folder = RUNS / Path(model.name).name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def converged(model: Model, chosen: Iterable[Trial]) -> list[Image.Image]:
    """Pictures of Euler's method in very small steps, drawn once and kept."""
    folder, found = kept_in(model) / "converged", []
    folder.mkdir(exist_ok=True)
    for seed, trial in enumerate(chosen):
        path = folder / f"{seed:04d}.png"
        if not path.exists():
            draw(model, trial, seed, "euler", CONVERGED).save(path)
        with Image.open(path) as picture:
            found.append(picture.convert("RGB"))
    return found


def measure(model: Model, solver: str, steps: int, prompts: int) -> dict[str, float]:
    """A cell of the table, or what was kept of it."""
    path = kept_in(model) / f"{solver}-{steps}-{prompts}.json"
    if path.exists():
        kept: dict[str, float] = json.loads(path.read_text())
        return kept
    chosen = trials(prompts, 0)
    targets = converged(model, chosen[:COMPARED])
    judged = outcomes(
        lambda trial, seed: draw(model, trial, seed, solver, steps), chosen, load_judge().network
    )
    drawn: list[Outcome] = list(judged)
    found = {
        "right": sum(outcome.verdict.correct for outcome in drawn),
        "of": len(drawn),
        "psnr": mean(psnr(outcome.picture, target) for outcome, target in zip(drawn, targets, strict=False)),
    }
    atomic_write(path, json.dumps(found).encode())
    return found


def table(cells: dict[tuple[str, int], dict[str, float]]) -> str:
    """Markdown: a row per number of steps, the solvers side by side."""
    names = " | ".join(f"{name}: right | PSNR to {CONVERGED} steps, dB" for name in SOLVERS.values())
    rows = [f"| steps | {names} |", "|---" * (1 + 2 * len(SOLVERS)) + "|"]
    for steps in STEPS:
        told = (_cell(cells[solver, steps]) for solver in SOLVERS)
        rows.append(f"| {steps} | {' | '.join(told)} |")
    return "\n".join(rows)


def _cell(found: dict[str, float]) -> str:
    share = Share(hits=int(found["right"]), n=int(found["of"]))
    low, high = share.interval
    return f"{share.accuracy:.1%} ({low:.1%} to {high:.1%}) | {found['psnr']:.1f}"


@resumable
def main() -> None:
    """Measure what is missing, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=150)
    parser.add_argument("--model", default="toybox")
    given = parser.parse_args()
    model = load(given.model, dtype="fp32")
    cells = {}
    for solver, steps in every_cell():
        cells[solver, steps] = measure(model, solver, steps, given.prompts)
        print(f"{SOLVERS[solver]}, {steps} steps: {_cell(cells[solver, steps])}", flush=True)
    print(table(cells))


if __name__ == "__main__":
    main()
