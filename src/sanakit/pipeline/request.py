"""What a user asks for: one frozen, validated value that travels with every picture made from it.

Fields left at `None` mean "whatever the model was made for"; `complete` fills them from a model's defaults.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sanakit.base.echo import quoted
from sanakit.base.errors import RequestError
from sanakit.base.grid import SIZE_STEP
from sanakit.base.json_text import parse_json
from sanakit.base.seeds import MAX_SEED
from sanakit.flow import SOLVERS

MAX_SIDE = 16384
MAX_STEPS = 1000
MAX_COUNT = 10000
MAX_BLOCK = 10000
MAX_GUIDANCE = 1000.0  # pictures burn out past 20; far larger scales leave the range of the numbers


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """What a model fills into the fields of a request that were left open; sizes in pixels."""

    width: int
    height: int
    steps: int = 20
    guidance: float = 4.5
    solver: str = "dpm2"


@dataclass(frozen=True, kw_only=True)
class ImageRequest:
    """A wish for one or several pictures; raises `RequestError` with one sentence where it makes no sense.

    Picture k of `count` is drawn with `seed + k` and equals the picture of that seed asked for alone.
    `width` and `height` are pixels, multiples of 32. `guidance` above 1 switches classifier-free guidance on;
    `cfg_interval` limits it to a part of the noise range (0 = picture, 1 = pure noise). `pag` is the scale of
    perturbed attention guidance, 0 for none, and `pag_blocks` the transformer blocks that it perturbs.
    `chi` prepends the instruction the model was trained with, where it has one. An empty prompt asks for whatever
    the model draws without one. A prompt with more tokens than the model reads is refused, unless `truncate` allows
    to cut its end. `bins` draws at the nearest trained size, where the model asks for it, and scales to the size.
    """

    prompt: str
    negative: str = ""
    steps: int | None = None
    guidance: float | None = None
    seed: int = 0
    width: int | None = None
    height: int | None = None
    count: int = 1
    solver: str | None = None
    chi: bool = True
    cfg_interval: tuple[float, float] = (0.0, 1.0)
    pag: float = 0.0
    pag_blocks: tuple[int, ...] | None = None
    truncate: bool = False
    bins: bool = True

    def __post_init__(self) -> None:
        _check_texts(self)
        _check_numbers(self)
        _check_size(self.width, self.height)
        _check_guidance(self)

    def complete(self, defaults: Defaults) -> ImageRequest:
        """The same request with every open field filled from `defaults`."""
        open_fields = {f.name: getattr(defaults, f.name) for f in dataclasses.fields(defaults)}
        return self.replace(
            **{name: value for name, value in open_fields.items() if getattr(self, name) is None}
        )

    def replace(self, **changes: Any) -> ImageRequest:
        """A validated copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def picture(self, index: int) -> ImageRequest:
        """The request that draws picture `index` of this one alone."""
        return self.replace(seed=self.seed + index, count=1)

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values, in the order of the class."""
        return {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}

    @classmethod
    def from_json(cls, data: object) -> ImageRequest:
        """Inverse of `to_json`; takes a mapping or its JSON text. Raises `RequestError` for unknown or bad fields."""
        fields = _as_mapping(data)
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(fields) - known)
        if unknown:
            raise RequestError(
                f"the request has a field that this version does not know: {quoted(unknown[0])}."
            )
        if "prompt" not in fields:
            raise RequestError("the request has no prompt.")
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
        }
        return cls(**values)


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _as_mapping(data: object) -> Mapping[str, Any]:
    if isinstance(data, (str, bytes)):
        try:
            data = parse_json(data)
        except ValueError:
            raise RequestError("the request is not JSON.") from None
    if not isinstance(data, Mapping) or not all(isinstance(name, str) for name in data):
        raise RequestError("the request must be a JSON object.")
    return data


def _check_texts(request: ImageRequest) -> None:
    for name in ("prompt", "negative"):
        text = getattr(request, name)
        if not isinstance(text, str):
            raise RequestError(f"{name} must be text, not {type(text).__name__}.")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise RequestError(f"{name} holds bytes that are not valid UTF-8.") from None
    if request.solver is not None and request.solver not in SOLVERS:
        raise RequestError(f"unknown solver {quoted(request.solver)}: choose one of {', '.join(SOLVERS)}.")
    for name in ("chi", "truncate", "bins"):
        if not isinstance(getattr(request, name), bool):
            raise RequestError(f"{name} must be true or false.")


def _check_numbers(request: ImageRequest) -> None:
    _whole("seed", request.seed, 0, MAX_SEED, "2^63-1")
    _whole("count", request.count, 1, MAX_COUNT)
    if request.steps is not None:
        _whole("steps", request.steps, 1, MAX_STEPS)
    if request.seed + request.count - 1 > MAX_SEED:
        raise RequestError("seed + count goes past the largest seed 2^63-1: choose a smaller seed.")


def _whole(name: str, value: object, low: int, high: int, high_text: str | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise RequestError(
            f"{name} must be a whole number from {low} to {high_text or high}, not {quoted(value)}."
        )


def _check_size(width: object, height: object) -> None:
    for name, value in (("width", width), ("height", height)):
        if value is None:
            continue
        _whole(name, value, SIZE_STEP, MAX_SIDE)
        assert isinstance(value, int)
        if value % SIZE_STEP:
            near = max(SIZE_STEP, round(value / SIZE_STEP) * SIZE_STEP)
            raise RequestError(
                f"{name} must be a multiple of {SIZE_STEP}, and {value} is not: {near} is the nearest."
            )


def _check_guidance(request: ImageRequest) -> None:
    for name in ("guidance", "pag"):
        value = getattr(request, name)
        if value is not None and not (_is_finite(value) and 0 <= value <= MAX_GUIDANCE):
            raise RequestError(f"{name} must be a number from 0 to {MAX_GUIDANCE:g}, not {quoted(value)}.")
    interval = request.cfg_interval
    if (
        not isinstance(interval, tuple)
        or len(interval) != 2
        or not all(_is_finite(edge) for edge in interval)
    ):
        raise RequestError("cfg_interval must be two numbers, low and high.")
    if not 0 <= interval[0] <= interval[1] <= 1:
        raise RequestError(f"cfg_interval must lie in 0..1 with low first, not {interval[0]},{interval[1]}.")
    blocks = request.pag_blocks
    if blocks is None:
        return
    if not isinstance(blocks, tuple) or not 0 < len(blocks) <= MAX_BLOCK:
        raise RequestError("pag_blocks must name at least one block.")
    for block in blocks:
        _whole("a pag block", block, 0, MAX_BLOCK)


def _is_finite(value: object) -> bool:
    """A number that a float can hold."""
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) < 2**1023
    return isinstance(value, float) and math.isfinite(value)
