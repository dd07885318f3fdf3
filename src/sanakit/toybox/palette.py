"""How the words look: linear-light colours of objects, floors and lights, and the numbers of each material."""

from __future__ import annotations

from dataclasses import dataclass

RGB = tuple[float, float, float]


def linear(code: str) -> RGB:
    """Return an sRGB code "rrggbb" as linear light (exponent 2.2, which the renderer undoes)."""
    red, green, blue = ((int(code[i : i + 2], 16) / 255) ** 2.2 for i in (0, 2, 4))
    return red, green, blue


COLOUR_RGB: dict[str, RGB] = {
    "red": linear("d81818"),
    "orange": linear("ff8410"),
    "yellow": linear("ffe21a"),
    "green": linear("22a528"),
    "cyan": linear("1fd8dc"),
    "blue": linear("1c3fe0"),
    "purple": linear("8426c4"),
    "pink": linear("ff82bc"),
    "white": linear("f4f4f4"),
    "black": linear("262628"),
}


@dataclass(frozen=True, kw_only=True)
class Material:
    """Shares of diffuse light and of the mirrored sky, the highlight's strength and exponent, stripes or none."""

    diffuse: float
    mirror: float
    highlight: float
    exponent: float
    stripes: float


MATERIAL_LOOK: dict[str, Material] = {
    "rubber": Material(diffuse=1.0, mirror=0.0, highlight=0.03, exponent=6.0, stripes=0.0),
    "metal": Material(diffuse=0.42, mirror=1.0, highlight=1.3, exponent=60.0, stripes=0.0),
    "striped": Material(diffuse=1.0, mirror=0.0, highlight=0.05, exponent=12.0, stripes=1.0),
}


@dataclass(frozen=True, kw_only=True)
class Floor:
    """Two colours, the weights of the patterns that mix them (soft patches, checks, ...), the share of mirrored sky."""

    base: RGB
    other: RGB
    patches: float = 0.0
    checks: float = 0.0
    planks: float = 0.0
    ripples: float = 0.0
    mirror: float = 0.0


FLOOR_LOOK: dict[str, Floor] = {
    "grass": Floor(base=linear("3f7d26"), other=linear("7fae3e"), patches=1.0),
    "sand": Floor(base=linear("c79a5c"), other=linear("ecd09a"), patches=0.35, ripples=0.65),
    "snow": Floor(base=linear("c9d8ea"), other=linear("f4f8fc"), patches=1.0),
    "wood": Floor(base=linear("6b3d1e"), other=linear("a8693a"), planks=1.0),
    "tiles": Floor(base=linear("55565c"), other=linear("c2bfb8"), checks=1.0, mirror=0.12),
    "water": Floor(base=linear("0a4a6e"), other=linear("2f8fae"), patches=0.3, ripples=0.7, mirror=0.6),
}


@dataclass(frozen=True, kw_only=True)
class Light:
    """A time of day.

    The lamp (unit direction towards it, colour), the light of sky and ground, the sky's two colours, the glow around
    the sun's or moon's place in the picture, and how soft and how deep the shadows are.

    The elevation stays under 60 degrees: the cone's intersection relies on it.
    """

    towards: RGB
    lamp: RGB
    ambient: RGB
    bounce: RGB
    horizon: RGB
    zenith: RGB
    glow: RGB
    glow_width: float
    glow_at: tuple[float, float]
    shadow_softness: float
    shadow_depth: float


def _scaled(colour: RGB, factor: float) -> RGB:
    return colour[0] * factor, colour[1] * factor, colour[2] * factor


LIGHT_LOOK: dict[str, Light] = {
    "noon": Light(
        towards=(-0.42, 0.76, -0.50),
        lamp=(0.95, 0.92, 0.86),
        ambient=(0.30, 0.34, 0.40),
        bounce=(0.20, 0.20, 0.18),
        horizon=linear("cfe6f7"),
        zenith=linear("3f86dd"),
        glow=(0.0, 0.0, 0.0),
        glow_width=0.1,
        glow_at=(0.0, 0.7),
        shadow_softness=0.25,
        shadow_depth=0.95,
    ),
    "sunset": Light(
        towards=(-0.80, 0.40, -0.45),
        lamp=(1.05, 0.72, 0.42),
        ambient=(0.27, 0.23, 0.30),
        bounce=(0.16, 0.13, 0.14),
        horizon=linear("ff9a4a"),
        zenith=linear("5b3f8c"),
        glow=_scaled(linear("ffd070"), 0.8),
        glow_width=0.20,
        glow_at=(-0.58, 0.34),
        shadow_softness=0.35,
        shadow_depth=0.9,
    ),
    "night": Light(
        towards=(0.50, 0.66, -0.56),
        lamp=(0.34, 0.38, 0.50),
        ambient=(0.12, 0.13, 0.18),
        bounce=(0.07, 0.075, 0.095),
        horizon=linear("33477a"),
        zenith=linear("070b22"),
        glow=linear("e8ecff"),
        glow_width=0.08,
        glow_at=(0.58, 0.70),
        shadow_softness=0.35,
        shadow_depth=0.85,
    ),
    "overcast": Light(
        towards=(-0.25, 0.78, -0.57),
        lamp=(0.26, 0.26, 0.265),
        ambient=(0.42, 0.43, 0.45),
        bounce=(0.22, 0.22, 0.22),
        horizon=linear("c9ccd0"),
        zenith=linear("8d949c"),
        glow=(0.0, 0.0, 0.0),
        glow_width=0.1,
        glow_at=(0.0, 0.7),
        shadow_softness=1.2,
        shadow_depth=0.7,
    ),
}
