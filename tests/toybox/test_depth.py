"""Depth is true: it agrees with the geometry, and its jumps are the outlines of the renderer."""

from __future__ import annotations

from dataclasses import replace

import torch

from sanakit.toybox import render, sample_scene
from sanakit.toybox.camera import camera_of, project
from sanakit.toybox.depth import depth, depth_levels
from sanakit.toybox.shapes import half_height
from sanakit.toybox.torus import TUBE


def test_the_middle_of_an_object_is_a_little_nearer_than_its_centre() -> None:
    for seed in (3, 4):
        scene = sample_scene(seed)
        (item,) = scene.objects
        u, v, centre = project(camera_of(scene), (item.x, half_height(item), item.z))
        column, row = int((u + 1) / 2 * 128), int((1 - v) / 2 * 128)
        seen = float(depth(scene, 128)[row, column])
        assert centre - 1.2 < seen < centre


def test_the_sky_has_no_depth_and_the_floor_comes_nearer_downwards() -> None:
    scene = sample_scene(3)
    found = depth(scene, 64)
    assert bool(torch.isinf(found[:16]).all()) and not bool(torch.isinf(found[40:]).any())
    assert bool((found[41:, 0] < found[40:-1, 0]).all())
    levels = depth_levels(scene, 64)
    assert levels.dtype == torch.uint8 and int(levels[0, 0]) == 0 and 100 < int(levels[-1, 0]) < 255


def test_its_jumps_are_where_the_picture_shows_an_object() -> None:
    """Where the floor would be as near as the object is seen, the picture has the object's colour."""
    scene = sample_scene(3)  # a red cylinder on a pale floor
    empty = depth(type(scene)(**{**vars(scene), "objects": ()}), 128)
    nearer = depth(scene, 128) < empty - 0.05
    red = render([scene], 128)[0]
    red = red[0] - red[2] > 0.2
    assert (nearer & red).sum() / (nearer | red).sum() > 0.9


def test_a_torus_shows_the_depth_behind_its_hole() -> None:
    scene = sample_scene(3)
    item = replace(scene.objects[0], shape="torus", yaw=0.0)
    scene = replace(scene, objects=(item,))
    empty = depth(replace(scene, objects=()), 128)
    found = depth(scene, 128)
    u, v, centre = project(camera_of(scene), (item.x, half_height(item), item.z))
    column, row = int((u + 1) / 2 * 128), int((1 - v) / 2 * 128)
    assert found[row, column] == empty[row, column]  # through the hole
    tube = project(camera_of(scene), (item.x, half_height(item) * (2 - TUBE), item.z))
    top = float(found[int((1 - tube[1]) / 2 * 128), int((tube[0] + 1) / 2 * 128)])
    assert abs(top - tube[2]) < half_height(item)
