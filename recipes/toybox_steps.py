"""What each number of steps gives: `python -m recipes.toybox_steps [MODEL[:N,...] ...] [--prompts 150] [--rows 6]`.

For every model (the shipped teacher and its student, if none is named) and every number of steps (`toybox:20` has its
own): how many of the judge's prompts are drawn right, the score and the Frechet distance of the pictures, and the
seconds of a picture's denoising on this machine. The table is Markdown; it and the same as JSON go to runs/steps, with
one picture: a row for each of some prompts, drawn with the same seed in every column. What was measured is not measured
again while the weights stay. Seconds are worth writing down from a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image

from recipes.few_steps import draw, kept_measures
from recipes.settings import resumable
from sanakit.base.errors import RequestError, SanakitError
from sanakit.base.files import atomic_write, ensure_writable_folder
from sanakit.evaluation import Share
from sanakit.pipeline import Model, load
from sanakit.toybox.trials import trials
from sanakit.training.preview import captioned_sheet, save_sheet

RUNS = Path("runs/steps")
MODELS = ("toybox", "toybox-sprint")
STEPS = (1, 2, 4, 8, 20)
Models = Sequence[tuple[Model, tuple[int, ...]]]
"""Models with their numbers of steps."""
Cells = Mapping[tuple[str, int], Mapping[str, float]]
"""(model, steps) -> what `few_steps.measured` found."""


def short(name: str) -> str:
    """The name of a model in tables and files: a run's model has the run's."""
    path = Path(name)
    return path.parent.name if path.name == "model" else path.name


def parse_models(texts: Sequence[str], steps: Sequence[int]) -> Models:
    """`toybox`, with `steps`, and `toybox:4,20` with numbers of its own, as loaded models. Raises RequestError."""
    found = []
    for text in texts:
        name, colon, own = text.rpartition(":")
        if not colon:
            found.append((load(text), tuple(steps)))
        elif all(part.isdecimal() for part in own.split(",")):
            found.append((load(name), tuple(int(part) for part in own.split(","))))
        else:
            raise RequestError(f"numbers of steps look like toybox:4,20, not {text!r}")
    return found


def measure_all(models: Models, prompts: int, folder: Path) -> Cells:
    """Measure what is missing, model after model."""
    found: dict[tuple[str, int], Mapping[str, float]] = {}
    for model, steps in models:
        name = short(model.name)
        for count in steps:
            path = folder / name / f"{count}-{prompts}.json"
            cell = found[model.name, count] = kept_measures(path, model, count, prompts)
            print(f"{name}, {count} steps: {told(cell)}", file=sys.stderr, flush=True)
    return found


def told(cell: Mapping[str, float]) -> str:
    """A cell's figures as the last columns of a row."""
    share = Share(hits=int(cell["right"]), n=int(cell["prompts"]))
    low, high = share.interval
    right = f"{share.accuracy:.1%} ({low:.1%} to {high:.1%})"
    return f"{right} | {cell['score']:.3f} | {cell['frechet']:.2f} | {1000 * cell['seconds']:.0f}"


def table(cells: Cells) -> str:
    """Markdown, a row a cell."""
    rows = ["| model | steps | right | score | Frechet distance | denoising, ms |", "|---" * 6 + "|"]
    return "\n".join(
        [*rows, *(f"| {short(name)} | {steps} | {told(cell)} |" for (name, steps), cell in cells.items())]
    )


def sheet(models: Models, rows: int) -> Image.Image:
    """A row a prompt, a column for every model and number of steps; the seed of a row is its number."""
    pictures, texts = [], []
    for seed, trial in enumerate(trials(rows, 0)):
        for model, steps in models:
            for count in steps:
                pictures.append(draw(model, trial.prompt, seed, count)[0])
                what = f"{short(model.name)}, {count} step{'s' if count > 1 else ''}"
                texts.append(f"{what}: {trial.prompt}")
    return captioned_sheet(pictures, texts, columns=sum(len(steps) for _, steps in models))


def report(models: Models, prompts: int, rows: int, folder: Path = RUNS) -> str:
    """Measure, write steps.md, steps.json and steps.png, and return the table."""
    ensure_writable_folder(folder)
    cells = measure_all(models, prompts, folder)
    found = table(cells)
    values = [{"model": short(name), "steps": count, **cell} for (name, count), cell in cells.items()]
    machine = {
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "device": str(models[0][0].precision.device),
    }
    atomic_write(folder / "steps.json", json.dumps({"machine": machine, "cells": values}, indent=1).encode())
    atomic_write(folder / "steps.md", f"{found}\n".encode())
    save_sheet(folder / "steps.png", sheet(models, rows), [trial.prompt for trial in trials(rows, 0)])
    return found


@resumable
def main() -> None:
    """Measure the models named, or teacher and student, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", help=f"default: {' '.join(MODELS)}")
    parser.add_argument("--steps", type=int, nargs="+", default=list(STEPS))
    parser.add_argument("--prompts", type=int, default=150)
    parser.add_argument("--rows", type=int, default=6, help="of the picture")
    given = parser.parse_args()
    try:
        models = parse_models(given.models or MODELS, given.steps)
        print(report(models, given.prompts, given.rows))
    except SanakitError as error:
        print(f"error: {error}.", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
