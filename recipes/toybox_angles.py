"""At which angles does a model of few steps draw best? `python -m recipes.toybox_angles ANGLES ...`.

    python -m recipes.toybox_angles 1.5708,1.3 1.5708,1.1 1.5708,0.9        two steps of the shipped model
    python -m recipes.toybox_angles --model runs/toybox-sprint/model 1.5708,1.2,0.9,0.5

The prompts are others than those that models are measured with (recipes/toybox_steps.py), so that choosing among angles
flatters no figure there. What is chosen goes into `ANGLES` of recipes/toybox_sprint.py.
"""

from __future__ import annotations

import argparse

import torch
from PIL import Image

from recipes.settings import resumable
from sanakit.evaluation.toybox import outcomes, summarise
from sanakit.pipeline import ImageRequest, Model, load
from sanakit.toybox.judging.shipped import load_judge
from sanakit.toybox.trials import Trial, trials

SEED = 1
"""Of the prompts; those of models' figures have 0."""


@torch.no_grad()
def row(model: Model, angles: tuple[float, ...], prompts: int) -> str:
    """A row of the table: how the prompts are drawn at these angles."""
    judge = load_judge()

    def drawn(trial: Trial, number: int) -> Image.Image:
        return model.images(ImageRequest(prompt=trial.prompt, seed=number, angles=angles))[0]

    found = summarise(list(outcomes(drawn, trials(prompts, SEED), judge.network)), judge.features)
    cells = (f"{found.overall.hits} of {prompts}", f"{found.score:.3f}", f"{found.frechet or 0:.2f}")
    return f"| {', '.join(f'{angle:g}' for angle in angles)} | {' | '.join(cells)} |"


@resumable
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("angles", nargs="+", help="in radians, falling, with commas between them")
    parser.add_argument("--model", default="toybox-sprint")
    parser.add_argument("--prompts", type=int, default=100)
    given = parser.parse_args()
    model = load(given.model)
    print("| angles | right | score | Frechet distance |", "|---" * 4 + "|", sep="\n")
    for text in given.angles:
        print(row(model, tuple(float(angle) for angle in text.split(",")), given.prompts), flush=True)


if __name__ == "__main__":
    main()
