"""`evaluation.toybox`: outcomes and their summary, with a painter whose pictures are known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from sanakit.evaluation.page import write_page
from sanakit.evaluation.toybox import Outcome, outcomes, summarise, to_tensor
from sanakit.toybox import render, sample_scene
from sanakit.toybox.judging import Judge, Verdict
from sanakit.toybox.trials import CATEGORIES, phrasings, trials

TRIALS = trials(12)


@pytest.fixture(scope="module")
def found() -> list[Outcome]:
    torch.manual_seed(0)
    network = Judge().eval()
    pictures = (render([sample_scene(k) for k in range(3)], 64) * 255).to(torch.uint8)

    def draw(trial, seed: int) -> Image.Image:
        return Image.fromarray(pictures[seed % 3].permute(1, 2, 0).numpy())

    return list(outcomes(draw, TRIALS, network, seed=6))


def test_every_trial_is_drawn_with_its_own_seed(found: list[Outcome]) -> None:
    assert [o.trial for o in found] == TRIALS
    assert [o.seed for o in found] == list(range(6, 18))
    assert torch.equal(found[0].features, found[3].features)
    assert not torch.equal(found[0].features, found[1].features)


def test_the_summary_counts_by_category(found: list[Outcome]) -> None:
    right = {0, 6, 7}  # trials 0 and 6 are of the first category, 7 of the second
    marked = [
        replace(o, verdict=Verdict(correct=k in right, faults=(), score=0.5)) for k, o in enumerate(found)
    ]
    summary = summarise(marked, torch.randn(20, 112))
    assert (summary.overall.hits, summary.overall.n) == (3, 12)
    assert [summary.categories[name].hits for name in CATEGORIES] == [2, 1, 0, 0, 0, 0]
    assert summary.score == pytest.approx(0.5)
    told = json.loads(json.dumps(summary.to_json()))
    assert list(told)[:7] == ["overall", *CATEGORIES]
    assert set(told["overall"]) == {"accuracy", "low", "high", "n"}
    assert told["overall"]["accuracy"] == 0.25
    assert told["frechet"] > 0


def test_phrasings_count_apart(found: list[Outcome]) -> None:
    worded = [
        replace(o, trial=trial, verdict=Verdict(correct=k < 5, faults=(), score=0.0))
        for k, (o, trial) in enumerate(zip(found, phrasings(12), strict=True))
    ]
    renders = torch.randn(20, 112)
    alone, both = summarise(found, renders), summarise([*found, *worded], renders)
    assert not alone.phrasings and replace(both, phrasings={}) == alone
    assert [both.phrasings[name].hits for name in ("overall", *CATEGORIES)] == [5, 1, 1, 1, 1, 1, 0]


def test_distances_of_a_set_to_itself(found: list[Outcome]) -> None:
    features = torch.stack([o.features for o in found])
    assert summarise(found, features).frechet == pytest.approx(0, abs=1e-4)
    alone = summarise(found[:1], features)
    assert (alone.frechet, alone.kernel) == (None, None)


def test_the_page_shows_every_picture_and_escapes_words(found: list[Outcome], tmp_path: Path) -> None:
    outcome = replace(found[0], verdict=Verdict(correct=False, faults=("<b> stands for &",), score=0.1))
    summary = summarise(found, torch.randn(20, 112))
    files = [f"pictures/{k}.png" for k in range(12)]
    accuracy = {"as rendered": {"shape": (9, 10)}}
    write_page(tmp_path / "index.html", "a <model>", [outcome, *found[1:]], files, summary, accuracy)
    page = (tmp_path / "index.html").read_text()
    assert all(file in page for file in files)
    assert all(o.trial.prompt in page for o in found)
    assert "&lt;b&gt; stands for &amp;" in page
    assert "a &lt;model&gt;" in page
    assert "<b>" not in page
    assert str(summary.overall) in page


def test_pictures_become_tensors_channels_first() -> None:
    picture = Image.new("RGBA", (5, 3), (255, 7, 0, 9))
    assert to_tensor(picture)[:, 0, 0].tolist() == [255, 7, 0]
    assert to_tensor(picture).shape == (3, 3, 5)
