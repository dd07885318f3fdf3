"""The step of Toybox's transformer: which scenes, which times, which losses; and the shipped weights as its start."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from recipes import toybox, toybox_larger, toybox_second
from recipes.settings import recipe_trainer, settings
from recipes.toybox_alignment import cells_of
from recipes.toybox_flow import EDGES, FlowTraining, LatentScenes, Levers, open_scenes
from recipes.toybox_model import draw_lines, shows_two
from recipes.toybox_shards import SceneShards, keep, render_dataset
from sanakit.base.errors import InputError
from sanakit.toybox.parsing import parse
from sanakit.training import sentences
from sanakit.weights import read_model_spec, resolve

SCENES = 24


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> LatentScenes:
    """Small pictures, and latents that stand for theirs."""
    folder = tmp_path_factory.mktemp("scenes")
    render_dataset(folder, SCENES, 16, compiled=False)
    shards = SceneShards(folder)
    latents = torch.randn(SCENES, 32, 8, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    return LatentScenes(shards, latents, 0.5, cells_of([shards.scene(row) for row in range(SCENES)]))


def training(scenes: LatentScenes, levers: Levers, batch: int = 4) -> FlowTraining:
    tokenizer, joint = toybox_second.shipped_networks()
    torch.manual_seed(0)
    return FlowTraining(joint, scenes, tokenizer, levers, batch, compiled=False)


@pytest.fixture(autouse=True)
def shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped model, wherever tests run."""
    monkeypatch.setattr(toybox_second, "MODEL", resolve("toybox"))


def test_a_share_of_a_batch_shows_two_shapes(scenes: LatentScenes) -> None:
    found = training(scenes, Levers(two=0.5), batch=8)
    assert 0 < len(found.two) < SCENES
    for step in range(5):
        rows = found.rows(step)
        assert len(rows) == 8
        assert all(shows_two(scenes.shards.scene(row)) for row in rows[:4])
    walked = [row for step in range(len(found.two)) for row in found.rows(step)[:4]]
    assert {walked.count(row) for row in found.two} == {4}  # each as often as any other
    plain = training(scenes, Levers(), batch=8)
    assert sorted(row for step in range(3) for row in plain.rows(step)) == list(range(SCENES))


def test_two_things_may_be_told_unevenly(scenes: LatentScenes) -> None:
    rows, told = scenes.two, set()
    for step in range(20):
        lines = draw_lines(scenes.shards, rows, step, 0.0, uneven=1.0)
        for row, line in zip(rows, lines, strict=True):
            spec, scene = parse(line), scenes.shards.scene(row)
            first, second = sorted(spec.groups, key=lambda group: group.colour is None)
            assert first.colour and first.material and not (second.colour or second.material or second.size)
            assert all(any(group.matches(item) for item in scene.objects) for group in spec.groups)
            told.add((row, first.shape))
    assert len(told) == 2 * len(rows)  # each thing is the one that is told
    plain = draw_lines(scenes.shards, list(range(SCENES)), 3, 0.1)
    assert draw_lines(scenes.shards, list(range(SCENES)), 3, 0.1, uneven=0.0) == plain


def test_a_share_of_the_times_is_low(scenes: LatentScenes) -> None:
    usual, edges = (training(scenes, Levers(edges=share)) for share in (0.0, 0.5))
    t = edges.draw_times(4000, torch.Generator().manual_seed(1))
    plain = usual.draw_times(4000, torch.Generator().manual_seed(1))
    assert int((t != plain).sum()) == 2000
    below = (plain < EDGES).float().mean()
    assert float((t < EDGES).float().mean()) == pytest.approx(0.5 + 0.5 * float(below), abs=0.02)


def test_the_head_adds_its_loss_by_its_weight(scenes: LatentScenes) -> None:
    found, parts = {}, {}
    for weight in (0.0, 0.3):
        run = training(scenes, Levers(alignment=weight))
        parts[weight] = run.losses(run.batches(1), torch.Generator().manual_seed(0))
        found[weight] = float(parts[weight]["loss"].detach())
    assert "alignment" not in parts[0.0]
    assert found[0.3] == pytest.approx(found[0.0] + 0.3 * float(parts[0.3]["alignment"]), rel=1e-5)


def test_errors_in_cells_with_objects_weigh_more(scenes: LatentScenes) -> None:
    run = training(scenes, Levers(objects=3.0))
    cells, zeros = run.batches(0).cells, torch.zeros(4, 32, 8, 8)
    shown = cells.shown.expand_as(zeros)
    share = float(shown.mean())
    scale = 1 + 3 * share
    assert float(run.flow_loss(shown, zeros, cells)) == pytest.approx(4 * share / scale, rel=1e-5)
    assert float(run.flow_loss(1 - shown, zeros, cells)) == pytest.approx((1 - share) / scale, rel=1e-5)
    assert float(run.flow_loss(zeros + 2, zeros, cells)) == pytest.approx(4.0)


def test_the_shipped_weights_predict_and_training_resumes_to_the_bit(
    scenes: LatentScenes, tmp_path: Path
) -> None:
    levers = Levers(alignment=0.1, two=0.5, edges=0.25, optimizer="muon")
    last = []
    for stops in ((2,), (1, 2)):
        folder = tmp_path / str(len(stops))
        for steps in stops:
            run = training(scenes, levers)
            config = settings(
                folder, steps, size=32, batch=4, lr=1e-3, warmup=1, cooldown=0.0, optimizer="muon"
            )
            for _ in sentences(recipe_trainer(run.model, config).train(run.losses, run.batches)):
                pass
        last.append(run.model.state_dict())
    start = training(scenes, levers).model.state_dict()
    assert any(not torch.equal(start[name], last[0][name]) for name in start)
    for name, weight in last[0].items():
        assert torch.equal(weight, last[1][name]), name


def test_cells_are_kept_and_follow_the_latents(scenes: LatentScenes, tmp_path: Path) -> None:
    render_dataset(tmp_path / "set", 6, 16, compiled=False)
    for count in (4, 6):
        keep(tmp_path / "latents.pt", {"latents": scenes.latents[:count], "scaling_factor": 0.5})
        found = open_scenes(tmp_path / "set", tmp_path / "latents.pt", tmp_path / "cells.pt")
        assert found.factor == 0.5
        assert torch.equal(found.cells.things, scenes.cells.things[:count])
        assert len(torch.load(tmp_path / "cells.pt", weights_only=True)["things"]) == count


def test_missing_latents_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="recipes.toybox latents"):
        open_scenes(tmp_path, tmp_path / "latents.pt")


def test_a_larger_model_begins_as_the_shipped_one_and_is_written(
    scenes: LatentScenes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toybox, "RUNS", tmp_path)
    larger = toybox_larger.larger_training(12, scenes, 4, compiled=False)
    levers = replace(toybox_second.LEVERS, alignment=0.0)
    first, plain = larger.batches(1), training(scenes, levers)
    wanted = plain.losses(plain.batches(1), torch.Generator().manual_seed(0))
    told = larger.losses(first, torch.Generator().manual_seed(0))
    assert float(told["flow"]) == pytest.approx(float(wanted["flow"]), rel=1e-5)
    assert larger.levers.block == 5  # block 0 has a copy behind it, blocks 1 to 4 have none
    config = replace(toybox_larger.larger_config(12, 1), folder=tmp_path / "run", batch=4)
    found = read_model_spec(toybox_larger.train_larger(larger, config))
    assert found.transformer.depth == 12 and found.about is not None
