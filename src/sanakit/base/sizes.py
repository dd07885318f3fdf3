"""Sizes: of a picture in pixels, of a latent in tokens, and the aspect-ratio buckets of the published models."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sanakit.base.echo import quoted
from sanakit.base.errors import InputError, RequestError, SanakitError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "BUCKETS",
    "SIZE_STEP",
    "Grid",
    "Size",
    "check_side",
    "nearest_bucket",
    "nearest_side",
    "nearest_size",
]

SIZE_STEP = 32
"""Pixels per latent cell of an f32 autoencoder; widths and heights are multiples of it."""


@dataclass(frozen=True)
class Grid:
    """Frames, height and width of a latent in tokens; an image has one frame."""

    frames: int
    height: int
    width: int

    @property
    def tokens(self) -> int:
        """Length of the token sequence, frames * height * width."""
        return self.frames * self.height * self.width

    @classmethod
    def of(cls, latent: Tensor, patch: int = 1) -> Grid:
        """Return the grid of a latent [B, C, h, w] or [B, C, F, h, w] cut into `patch` x `patch` tokens."""
        if latent.dim() not in (4, 5):
            raise SanakitError(f"a latent has 4 or 5 dimensions, not the shape {list(latent.shape)}")
        frames = 1 if latent.dim() == 4 else int(latent.shape[2])
        return cls(frames, int(latent.shape[-2]) // patch, int(latent.shape[-1]) // patch)


@dataclass(frozen=True)
class Size:
    """Width and height of a picture in pixels; `str` gives 512x768, width first."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"

    @classmethod
    def parse(cls, text: str) -> Size:
        """Read `512x768`; one number stands for a square. Raises RequestError for any other text."""
        match = re.fullmatch(r"\s*(\d{1,6})(?:\s*[xX×]\s*(\d{1,6}))?\s*", text)
        if match is None:
            raise RequestError(f"a size looks like 512x768 (width x height), not {quoted(text)}")
        return cls(int(match[1]), int(match[2] or match[1]))

    def check(self, step: int = SIZE_STEP) -> Size:
        """Return the size. Raises RequestError unless both sides are positive multiples of `step`."""
        check_side("width", self.width, step)
        check_side("height", self.height, step)
        return self

    def nearest(self, step: int = SIZE_STEP) -> Size:
        """Return the nearest size whose sides are positive multiples of `step`."""
        return Size(nearest_side(self.width, step), nearest_side(self.height, step))


def nearest_side(side: float, step: int = SIZE_STEP) -> int:
    """Return the nearest positive multiple of `step`, of two equally near the even one."""
    return max(step, round(side / step) * step)


def check_side(name: str, side: int, step: int = SIZE_STEP, raises: type[InputError] = RequestError) -> None:
    """Raise `raises` unless a side in pixels, called `name` in the message, is a positive multiple of `step`."""
    if side < step or side % step:
        nearest = nearest_side(side, step)
        raise raises(f"{name} must be a multiple of {step}, and {side} is not: {nearest} is the nearest")


# (height, width) at 1024 pixels, from wide to tall: the sizes the published checkpoints were trained on.
_COMMON = (
    (512, 2048), (512, 1856), (576, 1792), (576, 1728), (576, 1664), (640, 1600), (640, 1536), (704, 1472),
    (704, 1408), (704, 1344), (768, 1344), (768, 1280), (832, 1216), (832, 1152), (896, 1152), (896, 1088),
    (960, 1088), (960, 1024), (1024, 1024), (1024, 960), (1088, 960), (1088, 896), (1152, 896), (1152, 832),
    (1216, 832), (1280, 768), (1344, 768), (1408, 704), (1472, 704), (1536, 640), (1600, 640), (1728, 576),
    (2048, 512),
)  # fmt: skip
# Seven more that only the 2K and 4K models know, on the same scale.
_LARGE = ((512, 1984), (512, 1920), (1664, 576), (1792, 576), (1856, 512), (1920, 512), (1984, 512))


def _scaled(sizes: tuple[tuple[int, int], ...], base: int) -> tuple[tuple[int, int], ...]:
    by_ratio = sorted(sizes, key=lambda size: size[0] / size[1])
    return tuple((height * base // 1024, width * base // 1024) for height, width in by_ratio)


BUCKETS: dict[int, tuple[tuple[int, int], ...]] = {
    512: _scaled(_COMMON, 512),
    1024: _scaled(_COMMON, 1024),
    2048: _scaled(_COMMON + _LARGE, 2048),
    4096: _scaled(_COMMON + _LARGE, 4096),
}
"""Base size -> (height, width) pairs in pixels, by growing height / width."""


def nearest_bucket(base: int, height: int, width: int) -> tuple[int, int]:
    """Return the (height, width) of `BUCKETS[base]` whose ratio is nearest to height / width.

    Ratios are compared after rounding to two decimals and the first of equals wins, as in diffusers'
    tables, so that both pick the same size. Raises RequestError for a base without buckets.
    """
    if base not in BUCKETS:
        raise RequestError(
            f"no aspect-ratio buckets for {base} pixels; known are {', '.join(map(str, BUCKETS))}"
        )
    return nearest_size(BUCKETS[base], height, width)


def nearest_size(sizes: Sequence[tuple[int, int]], height: int, width: int) -> tuple[int, int]:
    """Return (height, width) of `sizes` whose ratio is nearest to height / width, by the rule of `nearest_bucket`."""
    ratio = height / width
    return min(sizes, key=lambda size: abs(round(size[0] / size[1], 2) - ratio))
