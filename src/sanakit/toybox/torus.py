"""The torus: a solid that the world of Toybox does not have, to teach to a model that was trained on it.

`grammar.SHAPES` leaves it out, so no sampled scene has one, no caption names it and the judge does not know it. The
renderer does: a `SceneObject` of this shape stands in a scene like any other.

It stands on its edge like a wheel, its hole towards the camera. It is the ring inside its sphere: the radius of
its tube is a fixed share of the sphere's, so the numbers of a sphere (`shapes.Solid`) say all of it. In its own frame
(y up, axis along z) a point is inside when (sqrt(x^2 + y^2) - R)^2 + z^2 < r^2.
"""

from __future__ import annotations

import torch

from sanakit.toybox.grammar import SceneObject
from sanakit.toybox.shapes import Solid, Vec, interval

TUBE = 0.29
"""Radius of the tube, as a share of the sphere's radius: the hole is then 0.42 of the whole width."""

_STEPS = 48  # of a ray through the sphere: each is a 24th of its radius, and a tube is 14 of them wide
_HALVINGS = 7  # of a step, to find where the ray enters: 1/3000 of the radius


def is_torus(item: SceneObject) -> bool:
    """Return whether an object is a torus, which `ring_interval` and `ring_normal` describe."""
    return item.shape == "torus"


def ring_interval(solid: Solid, origin: Vec, ray: Vec) -> tuple[torch.Tensor, torch.Tensor]:
    """Like `shapes.interval`: where a ray enters the torus, and the same plus the length of its way inside."""
    near, far = interval(solid, origin, ray)
    meets = far > near
    wide = torch.broadcast_tensors(near, *origin, *ray, solid.h)
    start, ox, oy, oz, rx, ry, rz, size = (part[meets] for part in wide)  # [n], of those that meet the sphere
    step = (far[meets] - start) / _STEPS

    def inside(at: torch.Tensor) -> torch.Tensor:
        """Return whether the points of the rays at these distances [n] are in the tube."""
        x, y, z = ox + at * rx, oy + at * ry, oz + at * rz
        away = torch.sqrt(x * x + y * y) - (1 - TUBE) * size
        found: torch.Tensor = away * away + z * z < (TUBE * size) ** 2
        return found

    steps = torch.stack([inside(start + number * step) for number in range(_STEPS + 1)])  # [_STEPS + 1, n]
    first = steps.float().argmax(0)  # 0 if none is inside
    low, high = start + (first - 1).clamp(min=0) * step, start + first * step
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        found = inside(middle)
        low, high = torch.where(found, low, middle), torch.where(found, middle, high)
    enters, leaves = near.clone(), near.clone()
    enters[meets] = high
    leaves[meets] = high + steps.sum(0) * step
    return enters, leaves


def ring_normal(solid: Solid, point: Vec) -> Vec:
    """Return the unit outward normal at a point of the torus, both in its own frame."""
    x, y, z = point
    around = torch.sqrt(x * x + y * y) + 1e-6
    out = (around - (1 - TUBE) * solid.h) / around
    length = torch.sqrt((x * x + y * y) * out * out + z * z) + 1e-6
    return x * out / length, y * out / length, z / length
