"""Draws scenes that can be learnt and judged: nothing hidden, nothing outside the frame, clear relations.

What is seen is measured, not guessed: `view` casts a coarse grid of rays at each solid alone and at all together.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import torch

from sanakit.toybox.camera import FOCAL, Camera, camera_of, project, screen_points
from sanakit.toybox.grammar import (
    COLOURS,
    FLOORS,
    LIGHTS,
    MATERIALS,
    MAX_OBJECTS,
    RELATIONS,
    SHAPES,
    SIZES,
    Scene,
    SceneObject,
    Split,
    is_held_out,
)
from sanakit.toybox.shapes import Solid, footprint, half_height, interval, move_in, solid_row, turn_in

SEED_STRIDE = 1_000_000_000
"""Scene i of a set with seed s has the seed s * SEED_STRIDE + i."""


NEAR, DEEP = 6.0, 8.4  # where objects may stand, along z
MIN_VISIBLE = 0.62  # of an object's own outline
MIN_AREA = 0.008  # of the picture
_GRID, _REACH = 80, 1.25
_TRIES = 40


@dataclass(frozen=True, kw_only=True)
class Sight:
    """How one object is seen.

    The visible share of its outline, that area as a share of the picture, whether it is wholly inside the frame, and
    the box (left, top, right, bottom) of its outline in 0..1 of the picture.
    """

    share: float
    area: float
    inside: bool
    box: tuple[float, float, float, float]


def view(scene: Scene) -> tuple[Sight, ...]:
    """Return how each object of the scene is seen, in the order of `scene.objects`."""
    camera = camera_of(scene)
    u, v = screen_points(_GRID, _GRID, _REACH)
    ray = tuple(f + u * r + v * w for f, r, w in zip(camera.forward, camera.right, camera.up, strict=True))
    rows = torch.tensor([solid_row(item) for item in scene.objects])
    solid = Solid(*(column[:, None] for column in rows.unbind(1)))
    eye = tuple(torch.tensor([[part]]) for part in camera.eye)
    near, far = interval(
        solid, move_in(solid, (eye[0], eye[1], eye[2])), turn_in(solid, (ray[0], ray[1], ray[2]))
    )
    alone = far > near
    first = torch.where(alone, near, torch.inf).argmin(0)
    seen = alone & (first == torch.arange(len(rows))[:, None])
    framed = (u.abs() < 1) & (v.abs() < 1)
    return tuple(_sight(alone[k], seen[k], framed, u, v) for k in range(len(rows)))


def _sight(
    alone: torch.Tensor, seen: torch.Tensor, framed: torch.Tensor, u: torch.Tensor, v: torch.Tensor
) -> Sight:
    outline = int(alone.sum())
    if outline == 0:
        return Sight(share=0.0, area=0.0, inside=False, box=(0.0, 0.0, 0.0, 0.0))
    half = _REACH / _GRID
    left, right = float(u[alone].min()) - half, float(u[alone].max()) + half
    bottom, top = float(v[alone].min()) - half, float(v[alone].max()) + half
    return Sight(
        share=int((seen & framed).sum()) / outline,
        area=int((seen & framed).sum()) / int(framed.sum()),
        inside=max(-left, right, -bottom, top) <= 0.97,
        box=((left + 1) / 2, (1 - top) / 2, (right + 1) / 2, (1 - bottom) / 2),
    )


def relation_between(scene: Scene, first: int = 0, second: int = 1) -> str | None:
    """Return the one clear relation of the first object to the second, or None if a reader could doubt it.

    Beside: centres at least 0.25 of the picture's width apart and nearly equally far. In front or behind: at least
    1.2 apart in depth and within 0.3 of the width of each other.
    """
    camera = camera_of(scene)
    a, b = scene.objects[first], scene.objects[second]
    ua, _, za = project(camera, (a.x, half_height(a), a.z))
    ub, _, zb = project(camera, (b.x, half_height(b), b.z))
    if abs(za - zb) <= 0.7 and abs(ua - ub) >= 0.5:
        return "left of" if ua < ub else "right of"
    if abs(za - zb) >= 1.2 and abs(ua - ub) <= 0.6:
        return "in front of" if za < zb else "behind"
    return None


def is_clear(scene: Scene) -> bool:
    """Return whether every object is inside the frame, mostly visible and large enough to be recognised."""
    return all(s.inside and s.share >= MIN_VISIBLE and s.area >= MIN_AREA for s in view(scene))


def sample_scene(seed: int, split: Split = "train") -> Scene:
    """Draw a seed's scene, the same on every machine. Train and held-out scenes share no held-out combination."""
    draw = random.Random(f"toybox-{split}-{seed}")
    while True:
        floor, light = draw.choice(FLOORS), draw.choice(LIGHTS)
        items, relation = _draw_items(draw)
        scene = Scene(objects=tuple(items), floor=floor, light=light, seed=seed)
        if is_held_out(scene) != (split == "held_out"):
            continue
        placed = _place(draw, scene, relation)
        if placed is not None:
            return placed


def _draw_items(draw: random.Random) -> tuple[list[SceneObject], str | None]:
    """Objects that stand nowhere yet, and the relation the first should have to the second."""
    kind = draw.choices(("one", "related", "counted", "mixed"), (0.27, 0.37, 0.19, 0.17))[0]
    if kind == "one":
        return [_draw_object(draw)], None
    if kind == "related":
        return _draw_distinct(draw, 2), draw.choice(RELATIONS)
    if kind == "counted":
        return _draw_counted(draw, draw.choice((2, 3, 3, 4, 4))), None
    return _draw_mixed(draw, draw.choice((2, 3, 3, 4))), None


def _draw_object(draw: random.Random, large: float = 0.55) -> SceneObject:
    size = SIZES[0] if draw.random() < large else SIZES[1]
    shape, colour, material = draw.choice(SHAPES), draw.choice(COLOURS), draw.choice(MATERIALS)
    return SceneObject(shape=shape, colour=colour, material=material, size=size, x=0.0, z=NEAR)


def _draw_distinct(draw: random.Random, count: int, large: float = 0.55) -> list[SceneObject]:
    """Objects no two of which share both shape and colour."""
    items: list[SceneObject] = []
    while len(items) < count:
        item = _draw_object(draw, large)
        if all((item.shape, item.colour) != (other.shape, other.colour) for other in items):
            items.append(item)
    return items


def _draw_counted(draw: random.Random, count: int) -> list[SceneObject]:
    """Equal objects; in one case of five their colours differ."""
    item = _draw_object(draw, large={2: 0.55, 3: 0.35, 4: 0.12}[count])
    if draw.random() < 0.2:
        return [replace(item, colour=colour) for colour in draw.sample(COLOURS, count)]
    return [item] * count


def _draw_mixed(draw: random.Random, count: int) -> list[SceneObject]:
    """Different objects, or in half the cases of three and four one kind twice or more."""
    large = {2: 0.55, 3: 0.35, 4: 0.2}[count]
    if count == 2 or draw.random() < 0.5:
        return _draw_distinct(draw, count, large)
    first, second = _draw_distinct(draw, 2, large)
    repeats = draw.randint(1, count - 1)
    return [first] * repeats + [second] * (count - repeats)


def _place(draw: random.Random, scene: Scene, relation: str | None) -> Scene | None:
    """Return the scene with its objects placed and turned, or None if chance finds no clear arrangement."""
    camera = camera_of(scene)
    for _ in range(_TRIES * MAX_OBJECTS):
        items: list[SceneObject] = []
        for item in scene.objects:
            z = draw.uniform(NEAR, 7.4 if len(scene.objects) == 1 else DEEP)
            reach = z / FOCAL - footprint(item) * 1.05
            items.append(replace(item, x=draw.uniform(-reach, reach), z=z, yaw=draw.uniform(0.25, 1.32)))
        placed = replace(scene, objects=tuple(items))
        if _collide(items) or any(_off(camera, item) for item in items):
            continue
        if relation is not None and relation_between(placed) != relation:
            continue
        if is_clear(placed):
            return placed
    return None


def _collide(items: list[SceneObject]) -> bool:
    return any(
        (a.x - b.x) ** 2 + (a.z - b.z) ** 2 < (footprint(a) + footprint(b)) ** 2
        for k, a in enumerate(items)
        for b in items[:k]
    )


def _off(camera: Camera, item: SceneObject) -> bool:
    u, v, _ = project(camera, (item.x, 0.0, item.z))
    return abs(u) > 0.9 or v < -0.95
