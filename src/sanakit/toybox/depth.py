"""The true depth of a scene, and its picture as ControlNets read it: white is near, black is the sky.

Legend as in `render.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sanakit.toybox.camera import camera_of, screen_points
from sanakit.toybox.grammar import Scene
from sanakit.toybox.shapes import Solid, interval, move_in, solid_row, turn_in
from sanakit.toybox.torus import is_torus, ring_interval

NEAREST = 4.0
"""World units from the eye that are white: the lower edge of the picture and the nearest objects are beyond."""


def depth(scene: Scene, size: int = 256) -> Tensor:
    """[size, size] float32: distance along the optical axis of what is seen at each pixel's centre; inf is sky."""
    camera = camera_of(scene)
    u, v = screen_points(size, size)
    axes = zip(camera.forward, camera.right, camera.up, strict=True)
    x, y, z = (f + u * r + v * w for f, r, w in axes)  # one unit along the optical axis
    eye = (torch.tensor(camera.eye[0]), torch.tensor(camera.eye[1]), torch.tensor(camera.eye[2]))
    found = torch.where(y < -1e-4, -camera.eye[1] / y.clamp(max=-1e-4), torch.inf)
    for item in scene.objects:
        solid = Solid(*(torch.tensor(number) for number in solid_row(item)))
        cut = ring_interval if is_torus(item) else interval
        near, far = cut(solid, move_in(solid, eye), turn_in(solid, (x, y, z)))
        found = torch.where((far > near) & (near > 0), torch.minimum(found, near), found)
    return found.reshape(size, size)


def depth_levels(scene: Scene, size: int = 256) -> Tensor:
    """[size, size] uint8: the inverse of depth, 255 at `NEAREST` and nearer, 0 at infinity; linear in disparity."""
    return (255 * NEAREST / depth(scene, size)).round().clamp(0, 255).to(torch.uint8)
