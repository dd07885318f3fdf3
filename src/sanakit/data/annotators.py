"""Annotators: a picture becomes what a ControlNet reads of it. Same pixels, same result, on every machine.

canny   outlines, white on black (Canny, IEEE PAMI 8(6), 1986)       grey   brightness
soft    how steep each place is, white where steepest                 tile   the picture blurred to a few pixels
grid    mean colours of square cells                                  mask   the picture with a grey rectangle in it

Each is a function of an RGB picture and settings with a name each. Depth, normals and the like come from a model
(`labels/dense.py`).
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from sanakit.base.echo import quoted
from sanakit.base.errors import ConfigError

Annotate = Callable[[Image.Image], Image.Image]
"""An RGB picture -> an RGB picture of the same size."""

Floats = NDArray[np.float64]

_BINS = 4  # directions of a gradient that thinning tells apart
_STEP_SLOPE = 0.3989  # the slope of a step from 0 to 1 after a Gaussian blur of deviation 1
_GREY = (127, 127, 127)


def canny(picture: Image.Image, *, sigma: float = 1.0, low: float = 0.1, high: float = 0.25) -> Image.Image:
    """Outlines one pixel wide.

    sigma: pixels of blur before. low, high: contrast of an edge, 1 from black to white in any channel; what is above
    `high` is an outline, and what is above `low` if it is connected with one.
    """
    across, down = _gradient(picture, sigma)
    size = np.hypot(across, down) / _STEP_SLOPE * max(sigma, 1.0)
    thin = _thinned(size, across, down)
    return _grey((_connected(thin >= high, thin >= low) * 255).astype(np.uint8))


def soft(picture: Image.Image, *, sigma: float = 1.5) -> Image.Image:
    """Draw the slope of the blurred picture, its steepest hundredth white. sigma: pixels of blur."""
    across, down = _gradient(picture, sigma)
    size = np.hypot(across, down)
    return _grey((size / max(float(np.quantile(size, 0.99)), 0.02) * 255).clip(0, 255).astype(np.uint8))


def tile(picture: Image.Image, *, factor: float = 8) -> Image.Image:
    """Return the picture made `factor` times smaller, and as large as before."""
    small = (max(1, round(picture.width / factor)), max(1, round(picture.height / factor)))
    return picture.resize(small, Image.Resampling.BOX).resize(picture.size, Image.Resampling.BICUBIC)


def grid(picture: Image.Image, *, cell: float = 32) -> Image.Image:
    """Mean colours of cells of `cell` pixels a side."""
    small = (max(1, round(picture.width / cell)), max(1, round(picture.height / cell)))
    return picture.resize(small, Image.Resampling.BOX).resize(picture.size, Image.Resampling.NEAREST)


def grey(picture: Image.Image) -> Image.Image:
    """Brightness."""
    return picture.convert("L").convert("RGB")


def mask(picture: Image.Image, *, share: float = 0.25) -> Image.Image:
    """Cover `share` of a picture by a grey rectangle of its proportions; the place is decided by its pixels."""
    first, second = (
        int(part, 16) / 0xFFFF for part in _halves(hashlib.sha256(picture.tobytes()).hexdigest())
    )
    width, height = (max(1, round(side * share**0.5)) for side in picture.size)
    hidden = picture.copy()
    left, top = round(first * (picture.width - width)), round(second * (picture.height - height))
    hidden.paste(_GREY, (left, top, left + width, top + height))
    return hidden


ANNOTATORS: dict[str, Callable[..., Image.Image]] = {
    "canny": canny, "soft": soft, "tile": tile, "grid": grid, "grey": grey, "mask": mask,
}  # fmt: skip
"""Name -> function, whose keywords are its settings."""

_MOST = {"sigma": 50.0, "low": 1.0, "high": 1.0, "factor": 256.0, "cell": 1024.0, "share": 1.0}
_LEAST = {"factor": 1.0, "cell": 1.0}


@dataclass(frozen=True, kw_only=True)
class Annotator:
    """One of `ANNOTATORS` with settings. Raises ConfigError for an unknown name, setting or value."""

    name: str
    settings: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name not in ANNOTATORS:
            raise ConfigError(f"no annotator {quoted(self.name)}: there is {', '.join(ANNOTATORS)}")
        known = self.defaults
        for key, value in self.settings.items():
            if key not in known:
                has = f"it has {', '.join(known)}" if known else "it has none"
                raise ConfigError(f"the annotator {self.name} has no setting {quoted(key)}: {has}")
            low, high = _LEAST.get(key, 0.0), _MOST[key]
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise ConfigError(
                    f"{key} of the annotator {self.name} is a number from {low:g} to {high:g}, not {quoted(value)}"
                )

    @property
    def defaults(self) -> dict[str, float]:
        """The settings that it has."""
        parameters = inspect.signature(ANNOTATORS[self.name]).parameters.values()
        return {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}

    @property
    def all_settings(self) -> dict[str, float]:
        """Every setting with its value."""
        return self.defaults | {name: float(value) for name, value in self.settings.items()}

    @property
    def text(self) -> str:
        """Name and settings, for notes and keys of caches."""
        return f"{self.name} {json.dumps(self.all_settings, sort_keys=True)}"

    def function(self) -> Annotate:
        """Return what it does to a picture."""
        return partial(ANNOTATORS[self.name], **self.all_settings)


def _gradient(picture: Image.Image, sigma: float) -> tuple[Floats, Floats]:
    """Slopes [H, W] to the right and downwards of the blurred picture, of the channel that is steepest there."""
    blurred = (
        picture.convert("RGB").filter(ImageFilter.GaussianBlur(sigma)) if sigma else picture.convert("RGB")
    )
    levels = np.pad(np.asarray(blurred, dtype=np.float64) / 255, ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows = levels[:-2] + 2 * levels[1:-1] + levels[2:]  # Sobel: smoothed across the slope
    columns = levels[:, :-2] + 2 * levels[:, 1:-1] + levels[:, 2:]
    across, down = (rows[:, 2:] - rows[:, :-2]) / 8, (columns[2:] - columns[:-2]) / 8
    steepest = np.argmax(np.hypot(across, down), axis=2)[..., None]
    return (
        np.take_along_axis(across, steepest, axis=2)[..., 0],
        np.take_along_axis(down, steepest, axis=2)[..., 0],
    )


def _thinned(size: Floats, across: Floats, down: Floats) -> Floats:
    """Sizes [H, W] that are the largest along their own direction; 0 elsewhere."""
    direction = np.round(np.arctan2(down, across) / (np.pi / _BINS)).astype(int) % _BINS
    padded = np.pad(size, 1)
    height, width = size.shape

    def shifted(x: int, y: int) -> Floats:
        return padded[1 + y : 1 + y + height, 1 + x : 1 + x + width]

    largest = np.zeros(size.shape, dtype=bool)
    for number, (x, y) in enumerate(((1, 0), (1, 1), (0, 1), (-1, 1))):
        # Of two equal neighbours one stays.
        largest |= (direction == number) & (size > shifted(x, y)) & (size >= shifted(-x, -y))
    return np.where(largest, size, 0.0)


def _connected(sure: NDArray[np.bool_], possible: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return what is possible [H, W] and touches, over eight neighbours and others of it, what is sure."""
    found, count = sure & possible, -1
    while count != (count := int(found.sum())):
        wide = np.pad(found, 1)
        tall = wide[:-2] | wide[1:-1] | wide[2:]
        found = possible & (tall[:, :-2] | tall[:, 1:-1] | tall[:, 2:])
    return found


def _grey(levels: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(levels).convert("RGB")


def _halves(digest: str) -> tuple[str, str]:
    return digest[:4], digest[4:8]
