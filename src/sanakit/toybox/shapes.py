"""All five solids as one shape: a quadric of revolution, cut by a slab in y and by four sloped sides.

In the object's own frame (y up, origin at the middle of its height, turned by its yaw) a point is inside when
  x^2 + z^2 + a y^2 + b y + c <= 0     sphere a = 1, cylinder a = 0, cone a < 0
  |y| <= h                             caps and base
  +-x + k y <= d and +-z + k y <= d    cube k = 0, pyramid k > 0
The parts a shape does not use are so far out that they never bind, so one branchless formula draws every shape.
Each part cuts a ray to one interval; the largest entry and the smallest exit are the solid's own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch

from sanakit.toybox.grammar import SceneObject

Vec = tuple[torch.Tensor, torch.Tensor, torch.Tensor]

RADIUS = {"large": 1.0, "small": 0.6}
FAR = 60.0


@dataclass(frozen=True, kw_only=True)
class Extent:
    """Radius of the footprint and half the height, in units of the size's radius."""

    reach: float
    half_height: float


EXTENTS = {
    "sphere": Extent(reach=1.0, half_height=1.0),
    "cube": Extent(reach=0.80, half_height=0.80),
    "cylinder": Extent(reach=0.72, half_height=0.98),
    "cone": Extent(reach=1.0, half_height=1.06),
    "pyramid": Extent(reach=0.92, half_height=0.98),
    "torus": Extent(reach=1.0, half_height=1.0),  # not in the world of Toybox: see `torus.py`
}


def footprint(item: SceneObject) -> float:
    """Radius of the circle on the floor that holds the object, in world units."""
    corner = math.sqrt(2) if item.shape in ("cube", "pyramid") else 1.0
    return RADIUS[item.size] * EXTENTS[item.shape].reach * corner


def half_height(item: SceneObject) -> float:
    """Half the object's height in world units; it is also the height of its middle."""
    return RADIUS[item.size] * EXTENTS[item.shape].half_height


class Solid(NamedTuple):
    """The numbers of one object, each a float or a tensor [B, 1] that broadcasts against rays [B, R]."""

    x: torch.Tensor
    y: torch.Tensor
    z: torch.Tensor
    cos: torch.Tensor
    sin: torch.Tensor
    a: torch.Tensor
    b: torch.Tensor
    c: torch.Tensor
    h: torch.Tensor
    k: torch.Tensor
    d: torch.Tensor


def solid_row(item: SceneObject) -> list[float]:
    """Return the numbers of one object in the order of `Solid`."""
    r, h = RADIUS[item.size] * EXTENTS[item.shape].reach, half_height(item)
    a, b, c, k, d = 0.0, 0.0, -FAR * FAR, 0.0, FAR
    if item.shape in ("sphere", "torus"):  # a torus is the ring inside its sphere: see `torus.py`
        a, c = 1.0, -r * r
    elif item.shape == "cylinder":
        c = -r * r
    elif item.shape == "cone":  # radius r (h - y) / 2h
        slope = (r / (2 * h)) ** 2
        a, b, c = -slope, 2 * slope * h, -slope * h * h
    elif item.shape == "cube":
        d = r
    else:
        k, d = r / (2 * h), r / 2
    return [item.x, h, item.z, math.cos(item.yaw), math.sin(item.yaw), a, b, c, h, k, d]


def turn_in(solid: Solid, vector: Vec) -> Vec:
    """Return a world direction in the object's frame."""
    x, y, z = vector
    return solid.cos * x - solid.sin * z, y, solid.sin * x + solid.cos * z


def turn_out(solid: Solid, vector: Vec) -> Vec:
    """Return a direction of the object's frame in the world; the inverse of `turn_in`."""
    x, y, z = vector
    return solid.cos * x + solid.sin * z, y, solid.cos * z - solid.sin * x


def move_in(solid: Solid, point: Vec) -> Vec:
    """Return a world point in the object's frame."""
    return turn_in(solid, (point[0] - solid.x, point[1] - solid.y, point[2] - solid.z))


def interval(solid: Solid, origin: Vec, ray: Vec) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the ray (both in the object's frame) enters and leaves; it misses where the entry is not before the exit.

    Needs x^2 + z^2 > |a| y^2 of the ray, which lights under 60 degrees and this camera's rays keep.
    """
    ox, oy, oz = origin
    rx, ry, rz = ray
    square = rx * rx + rz * rz + solid.a * ry * ry
    half = ox * rx + oz * rz + (solid.a * oy + 0.5 * solid.b) * ry
    rest = ox * ox + oz * oz + (solid.a * oy + solid.b) * oy + solid.c
    inside = half * half - square * rest
    root = torch.sqrt(torch.clamp(inside, min=0.0))
    scale = 1.0 / square
    middle, reach = -half * scale, root * scale
    near, far = middle - reach, middle + reach
    over_y = 1.0 / _away_from_zero(ry)
    top, bottom = (solid.h - oy) * over_y, (-solid.h - oy) * over_y
    near, far = (
        torch.maximum(near, torch.minimum(top, bottom)),
        torch.minimum(far, torch.maximum(top, bottom)),
    )
    for position, speed in ((ox, rx), (-ox, -rx), (oz, rz), (-oz, -rz)):
        fall = _away_from_zero(speed + solid.k * ry)
        cross = (solid.d - position - solid.k * oy) / fall
        near = torch.where(fall < 0, torch.maximum(near, cross), near)
        far = torch.where(fall < 0, far, torch.minimum(far, cross))
    return near, torch.where(inside > 0, far, near)


def normal(solid: Solid, point: Vec) -> Vec:
    """Return the unit outward normal at a surface point, in the object's frame: that of the part nearest to it."""
    x, y, z = point
    slope = solid.a * y + 0.5 * solid.b
    length = torch.sqrt(x * x + z * z + slope * slope) + 1e-6
    round_gap = 0.5 * (x * x + z * z + (solid.a * y + solid.b) * y + solid.c) / length
    cap_gap = torch.abs(y) - solid.h
    tilt = torch.rsqrt(1 + solid.k * solid.k)
    x_gap, z_gap = (
        (torch.abs(x) + solid.k * y - solid.d) * tilt,
        (torch.abs(z) + solid.k * y - solid.d) * tilt,
    )
    most = torch.maximum(torch.maximum(round_gap, cap_gap), torch.maximum(x_gap, z_gap))
    zero = torch.zeros_like(most)
    nx, ny, nz = x / length, slope / length, z / length
    on_x, on_z, on_cap = x_gap >= most, z_gap >= most, cap_gap >= most
    nx = torch.where(on_cap, zero, torch.where(on_x, torch.sign(x) * tilt, torch.where(on_z, zero, nx)))
    nz = torch.where(on_cap | on_x, zero, torch.where(on_z, torch.sign(z) * tilt, nz))
    ny = torch.where(on_cap, torch.sign(y), torch.where(on_x | on_z, solid.k * tilt, ny))
    return nx, ny, nz


def _away_from_zero(value: torch.Tensor) -> torch.Tensor:
    return torch.where(torch.abs(value) < 1e-6, torch.full_like(value, 1e-6), value)


def dot(a: Vec, b: Vec) -> torch.Tensor:
    """Return the scalar product of two vectors."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def unit(vector: tuple[torch.Tensor, ...]) -> Vec:
    """Return the vector of length 1 with the same direction."""
    x, y, z = vector
    scale = torch.rsqrt(x * x + y * y + z * z)
    return x * scale, y * scale, z * scale
