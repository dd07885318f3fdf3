"""Scenes become pictures: a batched ray caster in plain torch.

Legend: B scenes, R rays of each, K objects. Every number of a ray is one tensor [B, R], every
number of a scene or of an object one tensor [B, 1], so that the whole picture is one chain of elementwise operations:
`torch.compile` fuses it into a few loops, and eager mode walks it in chunks of rays that stay in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import torch

from sanakit.toybox.camera import screen_points
from sanakit.toybox.grammar import Scene
from sanakit.toybox.packing import Look, Surroundings, pack, unpack
from sanakit.toybox.shading import floor_light, object_light, sky_light
from sanakit.toybox.shapes import Solid, Vec, interval, move_in, normal, turn_in, turn_out, unit
from sanakit.toybox.torus import is_torus, ring_interval, ring_normal

GAMMA = 2.2
_NOWHERE = 1.0e6


def render(
    scenes: Sequence[Scene],
    size: int = 256,
    samples: int = 2,
    device: torch.device | str = "cpu",
    compiled: bool = False,
) -> torch.Tensor:
    """Draw pictures [B, 3, size, size] in 0..1 (float32, on `device`), each from its scene alone.

    `samples` x `samples` rays a pixel are averaged in linear light. `compiled` fuses the work (slow first call).
    """
    pictures = torch.empty(len(scenes), 3, size, size, device=device)
    for index, scene in enumerate(scenes):
        pictures[index] = _render_one(scene, size, samples, torch.device(device), compiled)
    return pictures


def _render_one(scene: Scene, size: int, samples: int, device: torch.device, compiled: bool) -> torch.Tensor:
    world, objects = pack([scene])
    rings = tuple(k for k, item in enumerate(scene.objects) if is_torus(item))
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
    """Cast rays through screen points u, v [B, R] of packed scenes [B, 51], [B, K, 21] -> linear light [B, 3, R].

    rings: the numbers of the objects that are tori.
    """
    world, objects = unpack(world_rows, object_rows)
    ray = unit(tuple(f + u * r + v * w for f, r, w in zip(world.forward, world.right, world.up, strict=True)))
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
    sky = sky_light(world, ray, u, v)
    face = _seen_normal(solid, point, winner, rings)
    solid_light = object_light(world, solid, look, ray, point, lit, face)
    floor = floor_light(world, ray, point, lit, contact, floor_at)
    above = ray[1] >= -1e-4
    return torch.stack(
        [
            torch.where(hit, thing, torch.where(above, over, under))
            for thing, over, under in zip(solid_light, sky, floor, strict=True)
        ],
        dim=1,
    )


def _shadow(
    world: Surroundings,
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


def _seen_normal(solid: Solid, point: Vec, winner: torch.Tensor, rings: tuple[int, ...]) -> Vec:
    """Return the normal at the point that is seen, in the world."""
    inner = move_in(solid, point)
    plain = normal(solid, inner)
    if not rings:
        return turn_out(solid, plain)
    on_ring = torch.isin(winner, torch.tensor([float(number) for number in rings], device=winner.device))
    bent = ring_normal(solid, inner)
    x, y, z = (torch.where(on_ring, other, usual) for other, usual in zip(bent, plain, strict=True))
    return turn_out(solid, (x, y, z))


def _along(origin: Vec, ray: Vec, distance: torch.Tensor) -> Vec:
    return origin[0] + ray[0] * distance, origin[1] + ray[1] * distance, origin[2] + ray[2] * distance
