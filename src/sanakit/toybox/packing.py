"""Scenes as rows of numbers, and as the named tensors that the ray caster reads.

Legend as in `render.py`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from sanakit.toybox.camera import camera_of
from sanakit.toybox.grammar import Scene, SceneObject
from sanakit.toybox.palette import COLOUR_RGB, FLOOR_LOOK, LIGHT_LOOK, MATERIAL_LOOK
from sanakit.toybox.shapes import Solid, Vec, footprint, solid_row

_SOLID = len(Solid._fields)


class Look(NamedTuple):
    """How one object looks, in linear light."""

    red: torch.Tensor
    green: torch.Tensor
    blue: torch.Tensor
    band: torch.Tensor
    stripes: torch.Tensor
    diffuse: torch.Tensor
    mirror: torch.Tensor
    highlight: torch.Tensor
    exponent: torch.Tensor
    foot: torch.Tensor


class Surroundings(NamedTuple):
    """Everything of a scene that is not an object; triples are colours or directions."""

    eye: Vec
    right: Vec
    up: Vec
    forward: Vec
    towards: Vec
    lamp: Vec
    ambient: Vec
    bounce: Vec
    horizon: Vec
    zenith: Vec
    glow: Vec
    base: Vec
    other: Vec
    glow_width: torch.Tensor
    glow_u: torch.Tensor
    glow_v: torch.Tensor
    softness: torch.Tensor
    depth: torch.Tensor
    patches: torch.Tensor
    checks: torch.Tensor
    planks: torch.Tensor
    ripples: torch.Tensor
    mirror: torch.Tensor
    shift_x: torch.Tensor
    shift_z: torch.Tensor


def _look_row(item: SceneObject) -> list[float]:
    colour, material = COLOUR_RGB[item.colour], MATERIAL_LOOK[item.material]
    band = {"white": 0.2, "black": 0.28}.get(item.colour, 0.85)
    return [
        *colour,
        band,
        material.stripes,
        material.diffuse,
        material.mirror,
        material.highlight,
        material.exponent,
        footprint(item),
    ]


def _world_row(scene: Scene) -> list[float]:
    camera, light, floor = camera_of(scene), LIGHT_LOOK[scene.light], FLOOR_LOOK[scene.floor]
    length = sum(part * part for part in light.towards) ** 0.5
    draw = random.Random(scene.seed * 2)
    return [
        *camera.eye,
        *camera.right,
        *camera.up,
        *camera.forward,
        *(part / length for part in light.towards),
        *light.lamp,
        *light.ambient,
        *light.bounce,
        *light.horizon,
        *light.zenith,
        *light.glow,
        *floor.base,
        *floor.other,
        light.glow_width,
        *light.glow_at,
        light.shadow_softness,
        light.shadow_depth,
        floor.patches,
        floor.checks,
        floor.planks,
        floor.ripples,
        floor.mirror,
        draw.uniform(0, 6.2832),
        draw.uniform(0, 6.2832),
    ]


# An object that no ray meets (negative half-height): scenes are padded to 2 or 4 objects, so two compiled graphs do.
_ABSENT = [0.0, -50.0, 0.0, 1.0, 0.0, 1.0, 0.0, -1.0, -1.0, 0.0, 1.0] + [0.0] * 8 + [1.0, 1.0]


def pack(scenes: Sequence[Scene], least: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return world rows [B, W] and object rows [B, K, P] of scenes with equally many objects.

    least: rows of objects that every scene gets; those that it lacks stand for nothing. With as many as the fullest
    scene has objects, scenes of any number can be packed together.
    """
    world = torch.tensor([_world_row(scene) for scene in scenes], dtype=torch.float32)
    objects = [[solid_row(item) + _look_row(item) for item in scene.objects] for scene in scenes]
    for rows in objects:
        rows += [_ABSENT] * max(-len(rows) % 2, least - len(rows))
    return world, torch.tensor(objects, dtype=torch.float32)


def unpack(
    world_rows: torch.Tensor, object_rows: torch.Tensor
) -> tuple[Surroundings, list[tuple[Solid, Look]]]:
    """Return the rows of `pack` by name, each number as [B, 1]."""
    columns = [column[:, None] for column in world_rows.unbind(1)]
    triples = [(columns[at], columns[at + 1], columns[at + 2]) for at in range(0, 39, 3)]
    fields: list[Any] = [*triples, *columns[39:]]
    world = Surroundings(*fields)
    objects = []
    for rows in object_rows.unbind(1):
        numbers = [number[:, None] for number in rows.unbind(1)]
        objects.append((Solid(*numbers[:_SOLID]), Look(*numbers[_SOLID:])))
    return world, objects
