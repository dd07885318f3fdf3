"""Scenes become pictures: a batched ray caster in plain torch.

Legend: B scenes, R rays of each, K objects. Every number of a ray is one tensor [B, R], every
number of a scene or of an object one tensor [B, 1], so that the whole picture is one chain of elementwise operations:
`torch.compile` fuses it into a few loops, and eager mode walks it in chunks of rays that stay in the cache.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch

from sanakit.toybox.camera import camera_of, screen_points
from sanakit.toybox.extras import EXTRA_SHAPES, ring_interval, ring_normal
from sanakit.toybox.grammar import Scene, SceneObject
from sanakit.toybox.palette import COLOUR_RGB, FLOOR_LOOK, LIGHT_LOOK, MATERIAL_LOOK
from sanakit.toybox.shapes import (
    FAR,
    Solid,
    Vec,
    footprint,
    interval,
    move_in,
    normal,
    solid_row,
    turn_in,
    turn_out,
)

GAMMA = 2.2
_SOLID = len(Solid._fields)
_NOWHERE = 1.0e6


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


class World(NamedTuple):
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


def render(
    scenes: Sequence[Scene],
    size: int = 256,
    samples: int = 2,
    device: torch.device | str = "cpu",
    compiled: bool = False,
) -> torch.Tensor:
    """Pictures [B, 3, size, size] in 0..1 (float32, on `device`), each from its scene alone.

    `samples` x `samples` rays a pixel are averaged in linear light. `compiled` fuses the work (slow first call).
    """
    pictures = torch.empty(len(scenes), 3, size, size, device=device)
    for index, scene in enumerate(scenes):
        pictures[index] = _render_one(scene, size, samples, torch.device(device), compiled)
    return pictures


def _render_one(scene: Scene, size: int, samples: int, device: torch.device, compiled: bool) -> torch.Tensor:
    world, objects = _pack([scene])
    rings = tuple(k for k, item in enumerate(scene.objects) if item.shape in EXTRA_SHAPES)
    u, v = (points.to(device) for points in screen_points(size * samples, size * samples))
    cast = _compiled_cast() if compiled else cast_rays
    chunk = u.numel() if compiled else 1 << 14
    parts = [
        cast(u[at : at + chunk][None], v[at : at + chunk][None], world.to(device), objects.to(device), rings)
        for at in range(0, u.numel(), chunk)
    ]
    linear = torch.cat(parts, dim=2)[0].view(3, size, samples, size, samples).mean(dim=(2, 4))
    return linear.clamp_(0, 1).pow_(1 / GAMMA)


@cache
def _compiled_cast() -> Callable[..., torch.Tensor]:
    compiled: Callable[..., torch.Tensor] = torch.compile(cast_rays, dynamic=False)
    return compiled


def cast_rays(
    u: torch.Tensor,
    v: torch.Tensor,
    world_rows: torch.Tensor,
    object_rows: torch.Tensor,
    rings: tuple[int, ...] = (),
) -> torch.Tensor:
    """Screen points u, v [B, R] and packed scenes [B, 50], [B, K, 21] -> linear light [B, 3, R].

    rings: the numbers of the objects that are tori.
    """
    world, objects = _unpack(world_rows, object_rows)
    ray = _unit(
        tuple(f + u * r + v * w for f, r, w in zip(world.forward, world.right, world.up, strict=True))
    )
    floor_at = torch.where(ray[1] < -1e-4, -world.eye[1] / torch.clamp(ray[1], max=-1e-4), _NOWHERE)
    nearest, winner = torch.full_like(floor_at, _NOWHERE), torch.full_like(floor_at, -1.0)
    solid, look = objects[0]
    for index, (other, other_look) in enumerate(objects):
        cut = ring_interval if index in rings else interval
        near, far = cut(other, move_in(other, world.eye), turn_in(other, ray))
        closer = (far > near) & (near > 0) & (near < nearest)
        nearest = torch.where(closer, near, nearest)
        winner = torch.where(closer, float(index), winner)
        solid = Solid(*(torch.where(closer, new, old) for new, old in zip(other, solid, strict=True)))
        look = Look(*(torch.where(closer, new, old) for new, old in zip(other_look, look, strict=True)))
    hit = winner >= 0
    point = _along(world.eye, ray, torch.where(hit, nearest, torch.clamp(floor_at, max=200.0)))
    lit, contact = _shadow(world, objects, point, winner, rings)
    sky = _sky(world, ray, u, v)
    face = _face(solid, point, winner, rings)
    object_light = _object_light(world, solid, look, ray, point, lit, face)
    floor_light = _floor_light(world, ray, point, lit, contact, sky, floor_at)
    above = ray[1] >= -1e-4
    return torch.stack(
        [
            torch.where(hit, thing, torch.where(above, over, under))
            for thing, over, under in zip(object_light, sky, floor_light, strict=True)
        ],
        dim=1,
    )


def _shadow(
    world: World,
    objects: list[tuple[Solid, Look]],
    point: Vec,
    winner: torch.Tensor,
    rings: tuple[int, ...],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Share of lamp light that arrives at the point, and share of sky light (darker where things touch the floor).

    The shadow's edge is soft because a ray that only grazes a solid is dimmed little. A convex solid never shades its
    own lit side, so each object is skipped on itself.
    """
    lit, contact = torch.ones_like(winner), torch.ones_like(winner)
    for index, (solid, look) in enumerate(objects):
        cut = ring_interval if index in rings else interval
        near, far = cut(solid, move_in(solid, point), turn_in(solid, world.towards))
        through = (far - torch.clamp(near, min=0.0)) / world.softness
        through = torch.clamp(through, 0.0, 1.0)
        shade = world.depth * through * through * (3 - 2 * through)
        lit = lit * torch.where(winner == index, 1.0, 1 - shade)
        gap = ((point[0] - solid.x) ** 2 + (point[2] - solid.z) ** 2) / (look.foot * look.foot)
        contact = contact * (1 - 0.5 * torch.exp(-gap * gap * 0.6))
    return lit, contact


def _face(solid: Solid, point: Vec, winner: torch.Tensor, rings: tuple[int, ...]) -> Vec:
    """The normal at the point that is seen, in the world."""
    inner = move_in(solid, point)
    plain = normal(solid, inner)
    if not rings:
        return turn_out(solid, plain)
    on_ring = torch.isin(winner, torch.tensor([float(number) for number in rings], device=winner.device))
    bent = ring_normal(solid, inner)
    x, y, z = (torch.where(on_ring, other, usual) for other, usual in zip(bent, plain, strict=True))
    return turn_out(solid, (x, y, z))


def _object_light(
    world: World, solid: Solid, look: Look, ray: Vec, point: Vec, lit: torch.Tensor, face: Vec
) -> Vec:
    inner = move_in(solid, point)
    facing = torch.clamp(_dot(face, world.towards), min=0.0) * lit
    towards_eye = -_dot(ray, face)
    bounced = tuple(r + 2 * towards_eye * n for r, n in zip(ray, face, strict=True))
    half = _unit(tuple(t - r for t, r in zip(world.towards, ray, strict=True)))
    shine = look.highlight * lit * torch.pow(torch.clamp(_dot(half, face), min=1e-4), look.exponent)
    edge = torch.pow(torch.clamp(1 - towards_eye, 0.0, 1.0), 4)
    upwards = 0.5 + 0.5 * face[1]
    low = 0.62 + 0.38 * torch.clamp(point[1] / 0.8, 0.0, 1.0)
    band = torch.sigmoid((-torch.cos(inner[1] / solid.h * 6.2832) - 0.15) * 9.0) * look.stripes
    rise = torch.sigmoid((bounced[1] + 0.02) * 22.0)
    climb = torch.clamp(bounced[1], 0.0, 1.0)
    # Flat mirrors see nearly one spot of the sky: a slanted streak tells polished faces from matt ones.
    slant = ((point[0] - solid.x) + 0.8 * inner[1]) / solid.h - 0.1
    streak = torch.where(solid.d < FAR, torch.exp(-slant * slant * 14.0), 0.0)
    channels = []
    for i, colour in enumerate((look.red, look.green, look.blue)):
        albedo = colour + band * (look.band - colour)
        soft = low * (world.bounce[i] * (1 - upwards) + world.ambient[i] * upwards)
        over = world.horizon[i] + (world.zenith[i] - world.horizon[i]) * torch.sqrt(climb)
        under = 0.5 * (world.base[i] + world.other[i]) * (world.ambient[i] + 0.5 * world.lamp[i]) * 0.55
        seen = (under + (over - under) * rise) * (0.35 + 0.65 * low)
        seen = seen + streak * 0.8 * (world.ambient[i] + 0.6 * world.lamp[i])
        matte = albedo * look.diffuse * (world.lamp[i] * facing + soft)
        mirrored = look.mirror * seen * (albedo + (1 - albedo) * torch.maximum(edge, streak * 0.5) * 0.5)
        channels.append(matte + mirrored + world.lamp[i] * shine)
    return channels[0], channels[1], channels[2]


def _floor_light(
    world: World,
    ray: Vec,
    point: Vec,
    lit: torch.Tensor,
    contact: torch.Tensor,
    sky: Vec,
    floor_at: torch.Tensor,
) -> Vec:
    x, z = point[0] + world.shift_x, point[2] + world.shift_z
    fade = torch.exp(-torch.clamp(floor_at - 6.0, min=0.0) / 9.0)
    share = _floor_share(world, x, z, fade)
    haze = 1 - torch.exp(-torch.clamp(floor_at - 9.0, min=0.0) / 60.0)
    facing = torch.clamp(world.towards[1], min=0.0) * lit
    grazing = world.mirror * (0.25 + 0.75 * torch.exp(ray[1] * 5.0))
    channels = []
    for i in range(3):
        albedo = world.base[i] + (world.other[i] - world.base[i]) * share
        light = albedo * (world.lamp[i] * facing + world.ambient[i] * contact)
        light = light + (world.horizon[i] * (0.35 + 0.65 * contact * (0.4 + 0.6 * lit)) - light) * grazing
        channels.append(light + (world.horizon[i] - light) * haze)
    return channels[0], channels[1], channels[2]


def _floor_share(world: World, x: torch.Tensor, z: torch.Tensor, fade: torch.Tensor) -> torch.Tensor:
    """The pattern in 0..1: how much of the floor's second colour; it settles at a half where `fade` goes to 0."""
    patches = torch.sin(0.9 * x + 0.6 * torch.sin(0.8 * z)) * torch.sin(0.75 * z + 0.5 * torch.sin(1.1 * x))
    checks = torch.tanh(7.0 * torch.sin(2.0 * x) * torch.sin(2.0 * z))
    boards = (
        torch.tanh(5.0 * torch.sin(3.3 * x)) * 0.35
        + 0.4 * torch.sin(1.65 * x + 1.3)
        - 0.2 * torch.sin(0.45 * z + 2.0 * x)
    )
    ripples = torch.sin(2.6 * z + 0.9 * torch.sin(0.7 * x) + 0.35 * x)
    total = world.patches * patches + world.checks * checks + world.planks * boards + world.ripples * ripples
    return 0.5 + 0.5 * total * fade


def _sky(world: World, ray: Vec, u: torch.Tensor, v: torch.Tensor) -> Vec:
    climb = torch.sqrt(torch.clamp(ray[1] * 2.6, 0.0, 1.0))
    away = torch.sqrt((u - world.glow_u) ** 2 + (v - world.glow_v) ** 2)
    disc = torch.sigmoid((world.glow_width - away) * 60.0) + 0.25 * torch.exp(
        -((away / (world.glow_width * 2.2)) ** 2)
    )
    channels = [
        h + (z - h) * climb + g * disc
        for h, z, g in zip(world.horizon, world.zenith, world.glow, strict=True)
    ]
    return channels[0], channels[1], channels[2]


def _dot(a: Vec, b: Vec) -> torch.Tensor:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _unit(vector: tuple[torch.Tensor, ...]) -> Vec:
    x, y, z = vector
    scale = torch.rsqrt(x * x + y * y + z * z)
    return x * scale, y * scale, z * scale


def _along(origin: Vec, ray: Vec, distance: torch.Tensor) -> Vec:
    return origin[0] + ray[0] * distance, origin[1] + ray[1] * distance, origin[2] + ray[2] * distance


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


def _pack(scenes: Sequence[Scene]) -> tuple[torch.Tensor, torch.Tensor]:
    """World rows [B, W] and object rows [B, K, P] of scenes with equally many objects."""
    world = torch.tensor([_world_row(scene) for scene in scenes], dtype=torch.float32)
    objects = [[solid_row(item) + _look_row(item) for item in scene.objects] for scene in scenes]
    for rows in objects:
        rows += [_ABSENT] * (-len(rows) % 2)
    return world, torch.tensor(objects, dtype=torch.float32)


def _unpack(world_rows: torch.Tensor, object_rows: torch.Tensor) -> tuple[World, list[tuple[Solid, Look]]]:
    columns = [column[:, None] for column in world_rows.unbind(1)]
    triples = [(columns[at], columns[at + 1], columns[at + 2]) for at in range(0, 39, 3)]
    fields: list[Any] = [*triples, *columns[39:]]
    world = World(*fields)
    objects = []
    for rows in object_rows.unbind(1):
        numbers = [number[:, None] for number in rows.unbind(1)]
        objects.append((Solid(*numbers[:_SOLID]), Look(*numbers[_SOLID:])))
    return world, objects
