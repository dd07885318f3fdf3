"""How round the spheres of drawn pictures are: their outline against the circle that fits it best.

From the middle that the judge read, rays go out in all directions. The outline is where the colour changes most, near
the radius that a sphere of the size and distance that were read would have. The median over rays bears stripes,
highlights and shadows that a few of them mistake for it.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sanakit.toybox.camera import FOCAL, HEIGHT
from sanakit.toybox.judging import Found
from sanakit.toybox.judging.targets import MIDDLE
from sanakit.toybox.shapes import RADIUS

_RAYS, _POINTS = 96, 64
_NEAREST, _FARTHEST = 0.7, 1.35  # of the expected radius: the search along a ray
_FITS = 3  # of the circle, each without the rays that the last one found far off
_OUTLIER = 0.1  # of the radius


def out_of_round(image: Tensor, sphere: Found) -> float:
    """Return the median distance of a sphere's outline from its best circle, as a share of the radius; 0 is a circle.

    image: [3, S, S] in 0..1. sphere: as the judge read it in this image.
    """
    side = image.shape[-1]
    middle = torch.tensor([sphere.u, sphere.v]) * side
    points = _outline(image, middle, expected_radius(sphere) * side)  # [rays, 2]
    kept = points
    for _ in range(_FITS):
        centre, radius = _circle(kept)
        distance = (points - centre).norm(dim=1)
        near = (distance - radius).abs() < _OUTLIER * radius
        kept = points[near] if int(near.sum()) > _RAYS // 2 else points
    return float(((distance - radius).abs() / radius).median())


def expected_radius(sphere: Found) -> float:
    """Return the radius of a sphere of the size and depth that were read, as a share of the picture's side."""
    radius = RADIUS[sphere.size]
    distance = math.hypot(sphere.depth + MIDDLE, HEIGHT - radius)
    return radius * FOCAL / distance / 2  # the screen is 2 wide


def _outline(image: Tensor, middle: Tensor, radius: float) -> Tensor:
    """Return the steepest point of every ray, (x, y) in pixels [rays, 2]."""
    angles = torch.arange(_RAYS) * (2 * math.pi / _RAYS)
    ways = torch.stack([angles.cos(), angles.sin()], dim=1)  # [rays, 2]
    far = torch.linspace(_NEAREST, _FARTHEST, _POINTS) * radius  # [points]
    points = middle + ways[:, None] * far[:, None]  # [rays, points, 2]
    grid = points / image.shape[-1] * 2 - 1
    colours = F.grid_sample(image[None].float(), grid[None], align_corners=False, padding_mode="border")[0]
    steepness = (colours[..., 2:] - colours[..., :-2]).square().sum(0)  # [rays, points - 2]
    best = steepness.argmax(dim=1) + 1
    return points[torch.arange(_RAYS), best]


def _circle(points: Tensor) -> tuple[Tensor, Tensor]:
    """Centre [2] and radius [] of the circle nearest to points [n, 2], by least squares of x^2 + y^2 (Kasa 1976)."""
    shift = points.mean(0)
    near = (points - shift).double()
    matrix = torch.cat([2 * near, torch.ones(len(near), 1)], dim=1)
    a, b, c = torch.linalg.lstsq(matrix, near.square().sum(1, keepdim=True)).solution[:, 0]
    return torch.stack([a, b]).float() + shift, (c + a * a + b * b).sqrt().float()
