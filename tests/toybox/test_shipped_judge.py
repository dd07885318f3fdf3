"""The judge that ships: small, right about renders it has never seen, and honest about itself."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
import torch

from sanakit.base.errors import WeightsError
from sanakit.toybox import Scene, caption, render, sample_scene
from sanakit.toybox.captions import full_spec
from sanakit.toybox.judging import Reading, judge, read
from sanakit.toybox.judging.reading import accuracies
from sanakit.toybox.judging.shipped import FOLDER, STEM, load_judge
from sanakit.toybox.parsing import parse
from sanakit.toybox.trials import trials

SEEDS = range(10_000, 10_040)  # none of the held-out scenes that it was measured on


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [sample_scene(seed, "held_out") for seed in SEEDS]


@pytest.fixture(scope="module")
def readings(scenes: list[Scene]) -> list[Reading]:
    network = load_judge().network
    return [read(network, render([scene], 256))[0][0] for scene in scenes]


def test_it_is_small() -> None:
    assert sum(p.numel() for p in load_judge().network.parameters()) <= 3e6
    assert sum(path.stat().st_size for path in FOLDER.glob(f"{STEM}.*")) <= 2e6


def test_every_attribute_of_unseen_scenes_is_read(scenes: list[Scene], readings: list[Reading]) -> None:
    for name, (right, of) in accuracies(scenes, readings).items():
        assert right >= 0.94 * of, f"{name}: {right} of {of}"


def test_a_true_caption_passes_and_a_foreign_prompt_fails(
    scenes: list[Scene], readings: list[Reading]
) -> None:
    draw = random.Random(0)
    true = [
        judge(parse(caption(scene, draw)), reading) for scene, reading in zip(scenes, readings, strict=True)
    ]
    foreign = [
        judge(trial.spec, reading) for trial, reading in zip(trials(len(readings)), readings, strict=True)
    ]
    assert sum(verdict.correct for verdict in true) >= 0.85 * len(true)
    assert sum(verdict.correct for verdict in foreign) <= 0.1 * len(foreign)
    assert sum(v.score for v in true) / len(true) > 0.9 > 0.5 > sum(v.score for v in foreign) / len(foreign)


def test_both_resolutions_read_alike(scenes: list[Scene], readings: list[Reading]) -> None:
    network = load_judge().network
    for scene, reading in zip(scenes[:3], readings, strict=False):
        large = read(network, torch.nn.functional.interpolate(render([scene], 512), (256, 256), mode="area"))[
            0
        ][0]
        assert judge(full_spec(scene), large).correct == judge(full_spec(scene), reading).correct


def test_what_it_says_of_itself_is_complete() -> None:
    told = load_judge().accuracy
    assert list(told) == ["as rendered", "through the autoencoder"]
    for table in told.values():
        assert {"shape", "colour", "material", "size", "floor", "light"} <= set(table)
        assert all(0 < right <= of for right, of in table.values())
    assert len(load_judge().features) >= 500


@pytest.mark.parametrize("missing", [f"{STEM}.json", f"{STEM}.safetensors"])
def test_a_folder_that_lacks_a_part_is_refused(tmp_path: Path, missing: str) -> None:
    for path in FOLDER.glob(f"{STEM}.*"):
        if path.name != missing:
            shutil.copy(path, tmp_path)
    with pytest.raises(WeightsError, match=STEM):
        load_judge(tmp_path)
