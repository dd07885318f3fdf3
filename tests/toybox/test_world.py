"""The world: deterministic scenes and pictures, visible objects, colours that can be told apart, a clean split."""

from __future__ import annotations

import colorsys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from recipes.toybox_shards import SceneShards, render_dataset
from sanakit.toybox import (
    Scene,
    SceneObject,
    is_clear,
    is_held_out,
    render,
    sample_scene,
)
from sanakit.toybox.grammar import COLOURS, FLOORS, LIGHTS, combinations
from sanakit.toybox.sampling import view


def one(colour: str, light: str, shape: str = "sphere", material: str = "rubber") -> Scene:
    item = SceneObject(shape=shape, colour=colour, material=material, size="large", x=0.0, z=6.5)
    return Scene(objects=(item,), floor="tiles", light=light)


def test_scenes_and_pictures_are_the_same_for_the_same_seed() -> None:
    first, second = sample_scene(7), sample_scene(7)
    assert first == second
    assert sample_scene(8) != first
    assert torch.equal(render([first], 64), render([second], 64))


def test_a_picture_does_not_depend_on_its_batch() -> None:
    scenes = [sample_scene(seed) for seed in range(3)]
    assert torch.equal(render(scenes, 64)[1:2], render(scenes[1:2], 64))


def test_both_sizes_show_the_same_scene() -> None:
    scene = sample_scene(11)
    small = render([scene], 64)
    large = torch.nn.functional.avg_pool2d(render([scene], 128), 2)
    assert (small - large).abs().mean() < 0.01


def test_pictures_are_in_range_and_not_flat() -> None:
    pictures = render([sample_scene(seed) for seed in range(4)], 64)
    assert pictures.min() >= 0
    assert pictures.max() <= 1
    assert pictures.flatten(1).std(1).min() > 0.05


def test_every_sampled_object_is_seen() -> None:
    for seed in range(60):
        scene = sample_scene(seed)
        assert is_clear(scene)
        assert all(sight.share > 0.5 and sight.area > 0.005 and sight.inside for sight in view(scene))


@pytest.mark.parametrize("light", LIGHTS)
def test_colours_can_be_told_apart_under_every_light(light: str) -> None:
    """The mean colour of a big sphere's middle: no two colours are close."""
    pictures = render([one(colour, light) for colour in COLOURS], 64)
    seen = pictures[:, :, 34:44, 26:38].mean(dim=(2, 3))
    distance = torch.cdist(seen, seen) + torch.eye(len(COLOURS))
    assert distance.min() > 0.05


@pytest.mark.parametrize("light", LIGHTS)
def test_hues_keep_their_names(light: str) -> None:
    for colour, hue in (("red", 0.0), ("green", 1 / 3), ("blue", 2 / 3)):
        middle = render([one(colour, light)], 64)[0, :, 34:44, 26:38].mean(dim=(1, 2))
        got = colorsys.rgb_to_hsv(*middle.tolist())[0]
        assert min(abs(got - hue), 1 - abs(got - hue)) < 0.11


def test_floors_lights_and_materials_change_the_picture() -> None:
    base = one("red", "noon")
    others = [replace(base, floor=floor) for floor in FLOORS] + [
        replace(base, light=light) for light in LIGHTS[1:]
    ]
    others += [one("red", "noon", material=material) for material in ("metal", "striped")]
    pictures = render(others, 48).flatten(1)
    distance = (pictures[:, None] - pictures[None]).abs().mean(-1) + torch.eye(len(others))
    assert distance.min() > 0.003


def test_the_split_is_disjoint_in_combinations() -> None:
    train = [sample_scene(seed) for seed in range(120)]
    held = [sample_scene(seed, "held_out") for seed in range(60)]
    assert not any(is_held_out(scene) for scene in train)
    assert all(is_held_out(scene) for scene in held)
    known = set().union(*(combinations(scene) for scene in train))
    assert all(combinations(scene) - known for scene in held)


def test_a_scene_survives_json() -> None:
    scene = sample_scene(5)
    assert Scene.from_json(scene.to_json()) == scene


def test_a_data_set_resumes_and_keeps_what_is_whole(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    render_dataset(whole, 5, 32, shard=2, compiled=False)
    render_dataset(parts, 2, 32, shard=2, compiled=False)
    before = (parts / "images-00000.npy").stat().st_mtime_ns
    (parts / "images-00001.npy").write_bytes(
        (whole / "images-00002.npy").read_bytes()
    )  # a shard of a wrong length
    (parts / "scenes-00001.jsonl").write_text("")
    done: list[int] = []
    render_dataset(parts, 5, 32, shard=2, compiled=False, progress=lambda p: done.append(p.done))
    assert done == [4, 5]
    assert (parts / "images-00000.npy").stat().st_mtime_ns == before
    a, b = SceneShards(whole), SceneShards(parts)
    assert len(a) == len(b) == 5
    for index in range(5):
        assert torch.equal(a.image(index), b.image(index))
        assert a.scene(index) == b.scene(index) == sample_scene(index)
    expected = (render([a.scene(3)], 32)[0] * 255).round().to(torch.uint8)
    assert torch.equal(a.image(3), expected)
