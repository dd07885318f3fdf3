"""The camera: fixed but for a small jitter, looking slightly down, horizon at about 35 % from the top."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import torch

from sanakit.toybox.grammar import Scene

FOCAL = 2.6  # screen half-heights per unit of tangent
HEIGHT = 2.7
PITCH = math.atan(0.3 / FOCAL)  # looking down: puts the horizon 0.3 half-heights above the middle


@dataclass(frozen=True, kw_only=True)
class Camera:
    """Eye position and the three axes.

    The ray through screen point (u, v) is `forward + u right + v up`, u and v in -1..1, v upwards; right and up are
    already divided by the focal length.
    """

    eye: tuple[float, float, float]
    right: tuple[float, float, float]
    up: tuple[float, float, float]
    forward: tuple[float, float, float]


def camera_of(scene: Scene) -> Camera:
    """Return the camera of a scene; the jitter depends on the scene's seed alone."""
    draw = random.Random(scene.seed * 2 + 1)
    yaw, pitch = draw.uniform(-0.03, 0.03), PITCH + draw.uniform(-0.015, 0.015)
    eye = (draw.uniform(-0.15, 0.15), HEIGHT + draw.uniform(-0.1, 0.1), draw.uniform(-0.1, 0.1))
    sin_y, cos_y, sin_p, cos_p = math.sin(yaw), math.cos(yaw), math.sin(pitch), math.cos(pitch)
    return Camera(
        eye=eye,
        right=(cos_y / FOCAL, 0.0, -sin_y / FOCAL),
        up=(sin_y * sin_p / FOCAL, cos_p / FOCAL, cos_y * sin_p / FOCAL),
        forward=(sin_y * cos_p, -sin_p, cos_y * cos_p),
    )


def project(camera: Camera, point: tuple[float, float, float]) -> tuple[float, float, float]:
    """World point -> (u, v, depth) on the screen of -1..1, v upwards; depth along the optical axis."""
    offset = [p - e for p, e in zip(point, camera.eye, strict=True)]
    depth = sum(o * f for o, f in zip(offset, camera.forward, strict=True))
    u = sum(o * r for o, r in zip(offset, camera.right, strict=True)) * FOCAL**2 / depth
    v = sum(o * r for o, r in zip(offset, camera.up, strict=True)) * FOCAL**2 / depth
    return u, v, depth


def screen_points(height: int, width: int, reach: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixel centres as (u [height * width], v [height * width]), row by row from the top; `reach` widens the view."""
    v = (1 - (torch.arange(height, dtype=torch.float32) * 2 + 1) / height) * reach
    u = ((torch.arange(width, dtype=torch.float32) * 2 + 1) / width - 1) * reach * (width / height)
    return u.repeat(height), v.repeat_interleave(width)
