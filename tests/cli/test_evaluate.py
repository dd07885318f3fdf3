"""`sanakit evaluate toybox`: its numbers, its page, and what it refuses before anything is drawn."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path

import pytest
from PIL import Image

from sanakit.pipeline.model import Model
from sanakit.toybox.trials import CATEGORIES, phrasings, trials
from tests.cli.running import Sana, pictures_in


def evaluate(sana: Sana, *arguments: object):
    fixed = ("--model", sana.model, "--device", "cpu", "--dtype", "fp32", "--steps", 1, "--phrasings", 0)
    return sana("evaluate", "toybox", *fixed, *arguments)


def test_numbers_page_and_pictures(sana: Sana, tmp_path: Path):
    result = evaluate(sana, "--prompts", 7, "--json", "told/a.json", "--out", "here", "--seed", 3)
    assert result.exit_code == 0, result.stderr
    told = json.loads((tmp_path / "told" / "a.json").read_text())
    assert list(told) == [
        "overall",
        *CATEGORIES,
        "score",
        "frechet",
        "kernel",
        "edges",
        "roundness",
        "phrasings",
    ]
    assert told["phrasings"] is None
    assert [told[name]["n"] for name in ("overall", *CATEGORIES)] == [7, 2, 1, 1, 1, 1, 1]
    assert all(told[name]["low"] <= told[name]["accuracy"] <= told[name]["high"] for name in CATEGORIES)
    assert len(pictures_in(tmp_path / "here" / "pictures")) == 7
    page = (tmp_path / "here" / "index.html").read_text()
    assert all(f"pictures/{name}" in page for name in pictures_in(tmp_path / "here" / "pictures"))
    lines = result.stdout.splitlines()
    assert lines[0].startswith("overall ")
    assert any(line.startswith("the judge itself, ") and "shape 9" in line for line in lines)
    assert lines[-1] == "here/index.html"


def test_phrasings_are_reported_apart(sana: Sana, tmp_path: Path):
    result = evaluate(sana, "--prompts", 2, "--phrasings", 7, "--json", "a.json", "--out", "here")
    assert result.exit_code == 0, result.stderr
    told = json.loads((tmp_path / "a.json").read_text())
    assert told["overall"]["n"] == 2
    assert [told["phrasings"][name]["n"] for name in ("overall", *CATEGORIES)] == [7, 2, 1, 1, 1, 1, 1]
    assert len(pictures_in(tmp_path / "here" / "pictures")) == 9
    assert any(line.startswith("phrasings ") for line in result.stdout.splitlines())
    page = (tmp_path / "here" / "index.html").read_text()
    assert "in phrasings that training lacks" in page
    assert all(escape(trial.prompt) in page for trial in phrasings(7))


def test_every_picture_is_asked_for_by_its_own_prompt_and_seed(
    sana: Sana, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked = []

    def images(model: Model, request) -> list[Image.Image]:
        asked.append((request.prompt, request.seed, request.steps, request.guidance, request.width))
        return [Image.new("RGB", (64, 64))]

    monkeypatch.setattr(Model, "images", images)
    assert evaluate(sana, "--prompts", 6, "--seed", 9, "--guidance", 2.5, "--size", 96).exit_code == 0
    assert asked == [(trial.prompt, 9 + k, 1, 2.5, 96) for k, trial in enumerate(trials(6, 9))]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("evaluate", "moon"), "nothing to evaluate on called 'moon'"),
        (("evaluate", "toybox", "--prompts", 0), "prompts must be 1 or more, not 0"),
        (("evaluate", "toybox", "--phrasings", -1), "phrasings must be from 0 to 100000, not -1"),
        (("evaluate", "toybox", "--steps", 0), "steps"),
        (("evaluate", "toybox", "--size", "wide"), "a size looks like 512x768"),
        (("evaluate", "toybox", "--model", "no/such"), "no/such"),
    ],
)
def test_bad_input_is_told_before_anything_is_drawn(sana: Sana, tmp_path: Path, arguments, message: str):
    result = sana(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert pictures_in(tmp_path) == []
