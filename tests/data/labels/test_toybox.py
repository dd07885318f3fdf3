"""The judge of the Toybox as captioner and scorer: what it says parses and is true, and truth scores above lies."""

from __future__ import annotations

from dataclasses import replace

import pytest
from PIL import Image

from sanakit.data.labels.toybox import toybox_captioner, toybox_scorer
from sanakit.toybox import captions, full_spec, parse, phrase, sample_scene
from sanakit.toybox.grammar import COLOURS, SHAPES, Scene
from tests.data.labels.renders import rendered

COUNT = 12


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [sample_scene(seed, "held_out") for seed in range(COUNT)]


@pytest.fixture(scope="module")
def pictures(scenes: list[Scene]) -> list[Image.Image]:
    return rendered(scenes)


def lie_about(scene: Scene) -> str:
    """The plain caption with another colour and another shape of its first things."""
    spec = full_spec(scene)
    first = spec.groups[0]
    colour = COLOURS[(COLOURS.index(first.colour or "") + 3) % len(COLOURS)]
    shape = SHAPES[(SHAPES.index(first.shape) + 2) % len(SHAPES)]
    return phrase(replace(spec, groups=(replace(first, colour=colour, shape=shape), *spec.groups[1:])))


def test_captions_are_of_the_grammar_and_mostly_right(
    scenes: list[Scene], pictures: list[Image.Image]
) -> None:
    said = [parse(text) for text in toybox_captioner()(pictures)]
    right = [
        (set(spec.groups), spec.floor, spec.light) == (set(full_spec(s).groups), s.floor, s.light)
        for spec, s in zip(said, scenes, strict=True)
    ]
    assert sum(right) >= 0.75 * COUNT
    related = [
        (spec.relation, full_spec(s).relation)
        for spec, s in zip(said, scenes, strict=True)
        if spec.relation and full_spec(s).relation and spec.groups == full_spec(s).groups
    ]
    assert related and all(read == true for read, true in related)


def test_true_captions_score_above_false_ones(scenes: list[Scene], pictures: list[Image.Image]) -> None:
    texts = [
        [phrase(full_spec(scene)), lie_about(scene), captions(scene)[-1], "a photo of my cat"]
        for scene in scenes
    ]
    scores = toybox_scorer()(pictures, texts)
    assert all(true > false for true, false, *_ in scores)
    assert all(false <= 25 for _, false, *_ in scores)
    assert sum(true > 25 and other > 25 for true, _, other, _ in scores) >= 0.75 * COUNT
    assert all(row[3] == 0 for row in scores)
    alone = toybox_scorer()(pictures[:1], texts[:1])
    assert alone[0] == pytest.approx(scores[0], abs=0.01)


def test_a_picture_of_nothing_has_no_caption() -> None:
    assert toybox_captioner()([Image.new("RGB", (64, 64), "black")]) == [""]
