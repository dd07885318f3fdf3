"""The model of few steps that ships: complete, the same picture in diffusers, mostly right in two steps."""

from __future__ import annotations

from pathlib import Path

import pytest

import sanakit
from sanakit.evaluation.toybox import outcomes
from sanakit.pipeline import ImageRequest, Model
from sanakit.toybox.judging.shipped import load_judge
from sanakit.toybox.trials import trials
from sanakit.weights import resolve
from tests.oracles.bounds import within
from tests.pipeline.drawing import open_diffusers, ours, theirs

FOLDER = resolve("toybox-sprint")
PROMPTS = 18  # three of each category


@pytest.fixture(scope="module")
def model() -> Model:
    return sanakit.load("toybox-sprint", device="cpu", dtype="fp32")


def test_it_has_a_card_and_two_steps_as_its_own(model: Model) -> None:
    card = (FOLDER / "README.md").read_text()
    assert all(word in card for word in ("Data", "Recipe", "Numbers", "Limits"))
    assert (model.defaults.steps, model.defaults.solver) == (2, "scm")


def test_diffusers_draws_the_same_picture(model: Model) -> None:
    request = ImageRequest(
        prompt="two yellow cones on sand", steps=2, guidance=4.5, seed=1, width=256, height=256, chi=False
    )
    # Its own second angle, which diffusers is told.
    ((_, second),) = model.spec.schedule.angles
    pipeline = open_diffusers("SanaSprintPipeline", Path(FOLDER))
    wanted = theirs(pipeline, request, intermediate_timesteps=second)
    within("the shipped model of few steps in diffusers: latents", ours(model, request)[0], wanted[0], 1e-4)


def test_two_steps_draw_what_is_asked_more_often_than_not(model: Model) -> None:
    def draw(trial, seed):
        return model.images(ImageRequest(prompt=trial.prompt, seed=seed, steps=2))[0]

    found = list(outcomes(draw, trials(PROMPTS), load_judge().network))
    assert sum(one.verdict.correct for one in found) > PROMPTS / 2
