"""Scenes and captions convert both ways, over hundreds of scenes and every phrasing."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from sanakit.base import RequestError
from sanakit.text import words_of
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
from sanakit.toybox.captions import BESIDE, shortened
from sanakit.toybox.grammar import NEXT_TO
from sanakit.toybox.trials import trials
from sanakit.toybox.wording import trained_wording, wording
from sanakit.toybox.words import (
    COLOUR_WAYS,
    FLOOR_WAYS,
    LIGHT_WAYS,
    MATERIAL_WAYS,
    SHAPE_WAYS,
    SIZE_WAYS,
    all_words,
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
            and relation_between(scene, a, b)
            in ((*BESIDE,) if spec.relation == NEXT_TO else (spec.relation,))
            for a, b in pairs
        ), text


def test_captions_tell_the_truth(scenes: list[Scene]) -> None:
    for number, scene in enumerate(scenes):
        drawn = [caption(scene, random.Random(1000 * number + k)) for k in range(8)]
        for text in [*captions(scene), *drawn]:
            says_the_truth(text, scene)
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


def specs(scenes: list[Scene], number: int) -> Iterator[tuple[SceneSpec, random.Random]]:
    """What captions say of scenes: all, or less, and "next to" in place of a side."""
    for index in range(number):
        draw = random.Random(index)
        spec = full_spec(scenes[index % len(scenes)])
        spec = shortened(spec, draw) if draw.random() < 0.7 else spec
        beside = spec.relation in BESIDE and draw.random() < 0.3
        yield (replace(spec, relation=NEXT_TO) if beside else spec), draw


def test_other_words_say_the_same(scenes: list[Scene]) -> None:
    for spec, draw in specs(scenes, 4000):
        text = wording(spec, draw).text
        assert parse(text) == spec, text


def test_a_share_of_phrasings_is_held_out_and_every_word_is_trained(scenes: list[Scene]) -> None:
    drawn = [wording(spec, draw) for spec, draw in specs(scenes, 1000)]
    assert 0.15 < sum(text.held_out for text in drawn) / len(drawn) < 0.4
    trained = {word for spec, draw in specs(scenes, 6000) for word in words_of(trained_wording(spec, draw))}
    assert trained == all_words()


def test_about_half_of_the_captions_are_plain(scenes: list[Scene]) -> None:
    plain = 0
    for number in range(2000):
        text = caption(scenes[number % len(scenes)], random.Random(number))
        plain += text == phrase(parse(text))
    assert 0.45 < plain / 2000 < 0.6


def test_no_word_of_a_thing_means_two_things() -> None:
    """Shapes stand apart from all others: a caption's things are found by them."""
    tables = (SHAPE_WAYS, COLOUR_WAYS, MATERIAL_WAYS, SIZE_WAYS, FLOOR_WAYS, LIGHT_WAYS)
    ways = [way for table in tables for said in table.values() for way in said]
    assert len(ways) == len(set(ways))
    shapes = {way.split()[-1] for said in SHAPE_WAYS.values() for way in said}
    others = {word for table in tables[1:] for said in table.values() for way in said for word in way.split()}
    assert not shapes & others
    assert all(next(iter(said)) == meaning for table in tables[:4] for meaning, said in table.items())


def test_the_prompts_of_the_trials_stay_as_they_are() -> None:
    """Figures of all models are of the same 600 prompts."""
    prompts = "\n".join(trial.prompt for trial in trials(600))
    assert (
        hashlib.sha256(prompts.encode()).hexdigest()
        == "56c40cfdd311fcf58d39c9848d97a6ef368aa0eee1b20ff8440084b60bd752de"
    )


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("two blue balls on the lawn at dusk", "two blue spheres on grass at sunset"),
        ("2 Blue balls", "two blue spheres"),
        ("Red cube on snow.", "a red cube on snow"),
        ("Draw me a picture of a huge shiny crimson ball!", "a large red metal sphere"),
        ("a tiny box with a navy can on its left", "a small cube right of a blue cylinder"),
        ("to the left of a cube is a violet tent with stripes", "a cube right of a purple striped pyramid"),
        ("a cube beside a cone", "a cube next to a cone"),
        ("a cube and a cone side by side on the beach", "a cube next to a cone on sand"),
        ("There are 3 cones, snow, midnight", "three cones on snow at night"),
        ("a chrome party hat", "a metal cone"),
        ("A red cube stands on the left side of the block.", "a red cube left of a cube"),
    ],
)
def test_prompts_as_people_type_them(text: str, plain: str) -> None:
    assert phrase(parse(text)) == plain


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a dog",
        "cubes",
        "a red blue cube",
        "seven cubes",
        "a cube atop a cone",
        "a cube on a cat",
        "a matte cone made of plastic",
    ],
)
def test_what_is_not_in_the_grammar_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="Toybox"):
        parse(text)
