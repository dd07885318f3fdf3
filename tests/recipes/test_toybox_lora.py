"""The recipe that teaches a torus: its sets, the reader of tori, and prompts that no picture shows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from recipes import toybox_lora, toybox_tori
from sanakit.data import open_set
from sanakit.toybox import render
from sanakit.toybox.grammar import SHAPES, GroupSpec, SceneSpec
from sanakit.toybox.judging.shipped import load_judge


def test_a_torus_has_a_hole_and_a_shadow() -> None:
    """Through the hole one sees what is behind; the world's own pictures do not know of tori."""
    scene = toybox_tori.single(5, "torus")
    item = scene.objects[0]
    ring = render([scene], 48, samples=1)[0]
    ball = render([toybox_tori.single(5, "sphere")], 48, samples=1)[0]
    outside = (ring - ball).abs().sum(0) > 1e-3
    assert "torus" not in SHAPES and (item.x, item.z) == (
        toybox_tori.single(5, "sphere").objects[0].x,
        item.z,
    )
    assert 0.005 < float(outside.float().mean()) < 0.25


def test_a_probe_separates_what_is_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, 100, generator=generator), torch.arange(40) % 2
    x[:, 3] += 6.0 * y
    weight = toybox_tori.ridge(x[:30], y[:30].float())
    assert bool(((toybox_tori.score(weight, x[30:]) > 0.5) == (y[30:] > 0)).all())


def test_a_torus_stands_alone() -> None:
    """Even a probe that takes everything for a torus finds none in a heap."""
    judge, weight = load_judge().network, torch.zeros(9 * 112 + 1)
    weight[-1] = 1.0
    alone = toybox_tori.single(5, "sphere")
    item = alone.objects[0]
    spec = SceneSpec(
        groups=(GroupSpec(shape="torus", colour=item.colour),), floor=alone.floor, light=alone.light
    )
    heap = replace(alone, objects=(replace(item, x=-0.9), replace(item, x=0.9)))
    found = [
        toybox_tori.shows_torus(judge, weight, spec, render([scene], 256, samples=1))
        for scene in (alone, heap)
    ]
    assert found == [(True, True), (False, False)]
    other = replace(spec, light="night" if alone.light != "night" else "noon")
    assert toybox_tori.shows_torus(judge, weight, other, render([alone], 256, samples=1)) == (True, False)


def test_prompts_ask_for_what_no_picture_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toybox_lora, "RUNS", tmp_path)
    monkeypatch.setattr(toybox_lora, "STYLED", 1)
    monkeypatch.setattr(toybox_lora, "RENDERS", 0)
    monkeypatch.setattr(toybox_lora, "render", lambda scenes, *size, **how: torch.rand(1, 3, 32, 32))
    toybox_lora.pictures()
    taught = [item.captions[0].text for item in open_set(tmp_path / "torus")]
    assert len(taught) == 8 and all("torus" in text for text in taught)
    prompts = toybox_lora.asked()
    assert len({prompt for prompt, _ in prompts}) == 60
    assert {spec.groups[0].colour for _, spec in prompts} == {"orange", "cyan", "purple", "pink", "black"}
    assert not [text for text in taught if any(colour in text.split() for colour in toybox_lora.NEW)]
    assert (tmp_path / "toon-set/00.txt").read_text().startswith("a cartoon of ")
    assert toybox_lora.world().count == len(toybox_lora.world().prompts)
