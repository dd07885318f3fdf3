"""The light that reaches the eye from an object, the floor and the sky, in linear RGB.

Legend as in `render.py`.
"""

from __future__ import annotations

import torch

from sanakit.toybox.packing import Look, Surroundings
from sanakit.toybox.shapes import FAR, Solid, Vec, dot, move_in, unit


def object_light(
    world: Surroundings, solid: Solid, look: Look, ray: Vec, point: Vec, lit: torch.Tensor, face: Vec
) -> Vec:
    """Light [B, R] per channel from an object: matt, mirrored and highlight.

    ray, face: unit directions of the ray and of the surface's normal. point: where they meet. lit: share of lamp light.
    The constants make a look, not physics.
    """
    inner = move_in(solid, point)
    facing = torch.clamp(dot(face, world.towards), min=0.0) * lit
    towards_eye = -dot(ray, face)
    bounced = tuple(r + 2 * towards_eye * n for r, n in zip(ray, face, strict=True))
    half = unit(tuple(t - r for t, r in zip(world.towards, ray, strict=True)))
    shine = look.highlight * lit * torch.pow(torch.clamp(dot(half, face), min=1e-4), look.exponent)
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


def floor_light(
    world: Surroundings,
    ray: Vec,
    point: Vec,
    lit: torch.Tensor,
    contact: torch.Tensor,
    floor_at: torch.Tensor,
) -> Vec:
    """Light [B, R] per channel from the floor: its pattern, which fades with distance, under haze.

    lit, contact: shares of lamp light and of sky light. floor_at: distance of the floor along the ray.
    """
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


def _floor_share(world: Surroundings, x: torch.Tensor, z: torch.Tensor, fade: torch.Tensor) -> torch.Tensor:
    """Return the floor's pattern, its second colour's share in 0..1; it settles at a half where `fade` goes to 0."""
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


def sky_light(world: Surroundings, ray: Vec, u: torch.Tensor, v: torch.Tensor) -> Vec:
    """Light [B, R] per channel from the sky: horizon to zenith, and the disc of the lamp at screen points u, v."""
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
