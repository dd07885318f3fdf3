"""Scenes and captions convert both ways, over hundreds of scenes and every phrasing."""

from __future__ import annotations

import random

import pytest

from sanakit.base import RequestError
from sanakit.toybox import (
    GroupSpec,
    Scene,
    SceneSpec,
    caption,
    captions,
    full_spec,
    parse,
    phrase,
    relation_between,
    sample_scene,
)

DEMO = "a large red metal sphere left of a small blue rubber cube on grass at sunset"
SEEDS = range(150)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [sample_scene(seed) for seed in SEEDS]


def says_the_truth(text: str, scene: Scene) -> None:
    """Every group, number, relation, floor and light that the text names is so in the scene."""
    spec = parse(text)
    assert spec.count == len(scene.objects)
    for group in spec.groups:
        assert sum(group.matches(item) for item in scene.objects) >= group.count, text
    assert spec.floor in (None, scene.floor)
    assert spec.light in (None, scene.light)
    if spec.relation is not None:
        first, second = spec.groups
        pairs = [(0, 1), (1, 0)]
        assert any(
            first.matches(scene.objects[a])
            and second.matches(scene.objects[b])
            and relation_between(scene, a, b) == spec.relation
            for a, b in pairs
        ), text


def test_captions_tell_the_truth(scenes: list[Scene]) -> None:
    for number, scene in enumerate(scenes):
        drawn = [caption(scene, random.Random(1000 * number + k)) for k in range(8)]
        for text in [*captions(scene), *drawn]:
            says_the_truth(text, scene)
            assert text == text.lower()
            assert len(text.split()) <= 45


def test_the_whole_truth_comes_back(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert parse(phrase(full_spec(scene))) == full_spec(scene)


def test_every_scene_has_several_captions_and_some_are_short(scenes: list[Scene]) -> None:
    said = [captions(scene) for scene in scenes]
    assert min(map(len, said)) >= 4
    shortest = [min(len(text.split()) for text in texts) for texts in said]
    assert min(shortest) == 2


def test_things_are_described_one_by_one_too(scenes: list[Scene]) -> None:
    """Of two different things, at times one alone has its colour named, or how they stand is left out."""
    related = [scene for scene in scenes if full_spec(scene).relation]
    drawn = [parse(caption(scene, random.Random(f"{scene.seed} {k}"))) for scene in related for k in range(6)]
    pairs = [spec for spec in drawn if len(spec.groups) == 2]
    uneven = [spec for spec in pairs if (spec.groups[0].colour is None) != (spec.groups[1].colour is None)]
    assert 0.05 < len(uneven) / len(pairs) < 0.35
    assert 0.05 < sum(spec.relation is None for spec in pairs) / len(pairs) < 0.35


def test_the_demo_prompt_is_a_plain_phrase() -> None:
    spec = parse(DEMO)
    assert phrase(spec) == DEMO
    assert spec.groups == (
        GroupSpec(shape="sphere", colour="red", material="metal", size="large"),
        GroupSpec(shape="cube", colour="blue", material="rubber", size="small"),
    )
    assert (spec.relation, spec.floor, spec.light) == ("left of", "grass", "sunset")


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("three green cones", (GroupSpec(shape="cone", count=3, colour="green"),)),
        ("an orange cube", (GroupSpec(shape="cube", colour="orange"),)),
        ("a Red cube", (GroupSpec(shape="cube", colour="red"),)),
        ("a cube, two spheres and a cone", (
            GroupSpec(shape="cube"), GroupSpec(shape="sphere", count=2), GroupSpec(shape="cone"),
        )),
    ],
)  # fmt: skip
def test_short_prompts(text: str, groups: tuple[GroupSpec, ...]) -> None:
    assert parse(text) == SceneSpec(groups=groups)


@pytest.mark.parametrize(
    "text", ["", "a dog", "red cube", "a red blue cube", "seven cubes", "a cube beside a cone"]
)
def test_what_is_not_in_the_grammar_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="Toybox"):
        parse(text)
