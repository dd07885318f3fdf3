"""`sanakit evaluate` and `--best-of`: numbers, pages, scores, and what is refused before anything is drawn."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path

import pytest
from PIL import Image

from sanakit.pipeline.model import Model
from sanakit.pipeline.png import read_picture
from sanakit.toybox.trials import CATEGORIES, phrasings, trials
from tests.cli.running import Sana, lines_of, pictures_in
from tests.data.labels.tiny_models import write_clip


def evaluate(sana: Sana, *arguments: object):
    fixed = ("--model", sana.model, "--device", "cpu", "--dtype", "fp32", "--steps", 1, "--size", 64)
    return sana("evaluate", "toybox", *fixed, "--phrasings", 0, *arguments)


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
        (("evaluate", "moon"), "No such command 'moon'"),
        (("evaluate", "pictures", "not-there", "--judge", "toybox"), "there is no folder at not-there"),
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


def test_pictures_that_are_there_are_scored_by_a_judge(sana: Sana, tmp_path: Path):
    assert sana.draw("a red cube", "--out", tmp_path / "drawn").exit_code == 0
    result = sana(
        "evaluate", "pictures", tmp_path / "drawn", "--judge", "toybox", "--json", tmp_path / "scores.json"
    )
    assert result.exit_code == 0 and "of 1 pictures" in result.stdout
    found = json.loads((tmp_path / "scores.json").read_text())
    assert found["judge"] == "toybox" and found["n"] == 1
    assert [(one["file"], one["prompt"]) for one in found["pictures"]] == [("a-red-cube-0.png", "a red cube")]


def test_the_best_of_candidates_is_kept_with_its_score(sana: Sana, tmp_path: Path):
    result = sana.draw(
        "a red cube", "--best-of", 3, "--keep", 2, "--judge", "toybox", "--out", tmp_path / "best", "--json"
    )
    drawn = [line for line in lines_of(result) if line["event"] == "picture"]
    assert len(drawn) == 2 and float(drawn[0]["score"]) >= float(drawn[1]["score"])
    made = read_picture(Path(drawn[0]["path"])).made
    assert (made["judge"], made["candidates"], made["score"]) == ("toybox", "3", drawn[0]["score"])
    assert made["together"] == "3"  # what fits into memory is drawn in one batch


def test_candidates_are_drawn_alone_where_that_is_asked_for(sana: Sana, tmp_path: Path):
    chosen = ("--best-of", 2, "--judge", "toybox", "--together", 1, "--out", tmp_path / "best.png")
    assert sana.draw("a red cube", *chosen).exit_code == 0
    assert "together" not in read_picture(tmp_path / "best.png").made


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--keep", 2), "--keep goes with --best-of"),
        (("--best-of", 2), "--best-of needs a judge"),
        (("--best-of", 2, "--keep", 3, "--judge", "toybox"), "keep must be from 1 to the 2"),
        (("--best-of", 2, "--count", 2, "--judge", "toybox"), "leave count out"),
        (("--best-of", 2, "--judge", "nobody"), "nobody"),
    ],
)
def test_choices_that_make_no_sense_are_refused(sana: Sana, tmp_path: Path, options, message: str):
    result = sana.draw("a red cube", *options, "--out", tmp_path / "best")
    assert result.exit_code == 2 and message in " ".join(result.stderr.split())
    assert pictures_in(tmp_path / "best") == []


def test_a_suite_is_drawn_scored_and_gone_on_with(sana: Sana, tmp_path: Path):
    (tmp_path / "suite.jsonl").write_text(
        '{"tag": "one", "prompt": "a cube"}\n{"tag": "two", "prompt": "a cone"}\n'
    )
    (tmp_path / "reference").mkdir()
    for index, colour in enumerate(("red", "green", "blue")):
        Image.new("RGB", (40, 40), colour).save(tmp_path / f"reference/{index}.bmp")
    features = write_clip(tmp_path / "clip")
    command = (
        "evaluate", "suite", tmp_path / "suite.jsonl", "--model", sana.model, "--device", "cpu", "--dtype", "fp32",
        "--steps", 1, "--size", 64, "--per-prompt", 2, "--judge", "toybox", "--reference", tmp_path / "reference",
        "--features", features, "--out", tmp_path / "out",
    )  # fmt: skip
    first = sana(*command)
    assert first.exit_code == 0, first.stderr
    assert "suite (geneval): 2 prompts, 4 of 4 pictures" in first.stdout
    told = json.loads((tmp_path / "out/report.json").read_text())
    assert list(told["judges"]["toybox"]) == ["overall", "one", "two"]
    assert told["frechet"][str(features)] > 0 and str(features) in told["kernel"]
    assert told["made"]["model"] == sana.model and "a picture took" in first.stdout
    assert told["drawing"]["pictures"] == 4 and told["drawing"]["seconds"] > 0 < told["drawing"]["peak_bytes"]
    assert pictures_in(tmp_path / "out/pictures") == [
        "00000-0.png",
        "00000-1.png",
        "00001-0.png",
        "00001-1.png",
    ]
    drawn = (tmp_path / "out/pictures/00000-0.png").stat().st_mtime_ns
    assert sana(*command).exit_code == 0
    assert (tmp_path / "out/pictures/00000-0.png").stat().st_mtime_ns == drawn
    again = json.loads((tmp_path / "out/report.json").read_text())
    assert again["drawing"] == told["drawing"]
    compared = sana("evaluate", "compare", tmp_path / "out/report.json", tmp_path / "out/report.json")
    assert compared.exit_code == 0 and "difference 0.00 ± 0.00 of 2 prompts: not clear" in compared.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "say what to measure"),
        (("--detector", "nobody"), "does not say which objects"),
        (("--judge", "toybox", "--colours", "nobody"), "--colours goes with --detector"),
        (("--judge", "toybox", "--reference", "."), "--reference and --features go together"),
        (("--judge", "nobody"), "nobody"),
        (("--judge", "toybox", "--workers", 3), "--workers goes with --engine"),
    ],
)
def test_a_suite_that_can_not_be_measured_is_not_drawn(sana: Sana, tmp_path: Path, options, message: str):
    (tmp_path / "suite.txt").write_text("a cube\n")
    result = sana(
        "evaluate", "suite", tmp_path / "suite.txt", "--model", sana.model, "--out", "out", *options
    )
    assert result.exit_code == 2 and message in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()
