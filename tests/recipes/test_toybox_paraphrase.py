"""The text encoder of Toybox learns other words from itself: what is compared with what, and that it learns."""

from __future__ import annotations

import random

import pytest
import torch

from recipes import toybox_second
from recipes.toybox_flow import LatentScenes
from recipes.toybox_paraphrase import ParaphraseTraining, caption_pair, held_out_gap
from recipes.toybox_shards import SceneShards, render_dataset
from sanakit.toybox import sample_scene
from sanakit.toybox.parsing import parse
from sanakit.weights import resolve


def test_both_captions_of_a_pair_say_the_same() -> None:
    written, other = [], 0
    for number in range(200):
        draw = random.Random(number)
        one, plain = caption_pair(sample_scene(number), draw)
        written.append(one)
        if one:
            said, meant = parse(one), parse(plain)
            assert (said.groups, said.floor, said.light) == (meant.groups, meant.floor, meant.light)
            assert said.relation in (meant.relation, "next to")
            other += one != plain
    assert 0 < written.count("") < 30
    assert other > 100


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> ParaphraseTraining:
    folder = tmp_path_factory.mktemp("scenes")
    render_dataset(folder, 8, 16, compiled=False)
    latents = torch.randn(8, 32, 4, 4, generator=torch.Generator().manual_seed(0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toybox_second, "MODEL", resolve("toybox"))  # wherever tests run
        tokenizer, joint = toybox_second.shipped_networks()
    return ParaphraseTraining(joint, tokenizer, LatentScenes(SceneShards(folder), latents, 1.0), batch=8)


def test_some_steps_bring_the_readings_together(training: ParaphraseTraining) -> None:
    transformer = {name: weight.clone() for name, weight in training.joint.transformer.state_dict().items()}
    plain = training.pair([0, 1], [("a red cube", "a red cube")] * 2)
    at_first = training.losses(plain, torch.Generator())["loss"]
    assert float(at_first.detach()) < 1e-10  # a copy reads as it does
    before = held_out_gap(training, 8)
    optimizer = torch.optim.AdamW(training.model.parameters(), lr=3e-4)  # as the recipe
    batch = training.batches(0)
    losses = []
    for _ in range(5):
        loss = training.losses(batch, torch.Generator().manual_seed(1))["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    assert held_out_gap(training, 8) != before
    for name, weight in training.joint.transformer.state_dict().items():
        assert torch.equal(weight, transformer[name]), name
