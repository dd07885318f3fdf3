"""Bounds of configuration values, written beside the type: `clip: Annotated[float, Bounds(least=0)]`.

`check_bounds` walks a dataclass with everything in it and raises one sentence with the key, the value and its bound.
A number is finite, whatever its bounds say.
"""

from __future__ import annotations

import math
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from itertools import pairwise
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from sanakit.base.errors import ConfigError

__all__ = [
    "MAX_ANGLE",
    "MAX_SEED",
    "Bounds",
    "Count",
    "Positive",
    "Seed",
    "Share",
    "Weight",
    "bounds_of",
    "check_bounds",
    "check_value",
    "falls",
    "is_finite",
]

MAX_ANGLE = 1.57080
"""Angle of pure noise in Sprint models, radians: pi/2 as their checkpoints round it, 4e-6 above."""

MAX_SEED = 2**63 - 1
"""Largest seed of a picture that is accepted; picture k of a count uses seed + k."""

_SHOWN = 80  # characters of a value that a message repeats


@dataclass(frozen=True)
class Bounds:
    """The allowed values of a number, or that a text or path must not be empty.

    least, most: it may reach them. above, below: it may not. off: 0 is allowed as well and means "off".
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    off: bool = False

    @property
    def words(self) -> str:
        """`at least 1 and at most 4096`."""
        limits_given = (
            ("at least", self.least),
            ("above", self.above),
            ("at most", self.most),
            ("below", self.below),
        )
        parts = " and ".join(f"{word} {_number(limit)}" for word, limit in limits_given if limit is not None)
        return f"0 (off) or {parts}" if self.off else parts

    def holds(self, value: float) -> bool:
        """Return whether a number is finite and inside."""
        if not math.isfinite(value):
            return False
        if self.off and value == 0:
            return True
        return (
            (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )


Count = Annotated[int, Bounds(least=0, most=10**9)]
"""How many; 0 is allowed."""

Positive = Annotated[int, Bounds(least=1, most=10**9)]
"""How many, at least one."""

Share = Annotated[float, Bounds(least=0, most=1)]
"""A part of a whole."""

Weight = Annotated[float, Bounds(least=0, most=10**6)]
"""A factor that may be 0."""

Seed = Annotated[int, Bounds(least=0, most=2**42)]
"""Seeds are multiplied by about a million and must stay below 2^63."""


def check_bounds(config: Any, where: str = "") -> None:
    """Raise ConfigError for the first value of a dataclass, or of one inside it, that is out of its bounds.

    where: what stands before the key in the message, e.g. "optimizer.".
    """
    kind: Any = type(config)
    for name, hint in _hints(kind).items():
        check_value(hint, getattr(config, name), where + name)


def check_value(hint: Any, value: Any, key: str) -> None:
    """Do the same for one value of a type. Raises ConfigError."""
    if is_dataclass(value) and not isinstance(value, type):
        check_bounds(value, f"{key}.")
    elif isinstance(value, tuple):
        item = next((get_args(option)[0] for option in _options(hint) if get_origin(option) is tuple), None)
        for number, each in enumerate(value):
            check_value(item, each, f"{key}[{number}]")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        _check_number(bounds_of(hint), value, key)
    elif value == "" and bounds_of(hint) is not None:
        raise ConfigError(f"{key} is empty; it must name something")


def bounds_of(hint: Any) -> Bounds | None:
    """Return the bounds in a type, also if the type allows None; None if it has none."""
    for option in _options(hint):
        if get_origin(option) is Annotated:
            return next((each for each in option.__metadata__ if isinstance(each, Bounds)), None)
    return None


def _check_number(bounds: Bounds | None, value: float, key: str) -> None:
    limits = bounds or Bounds()
    try:
        inside = limits.holds(value)
    except OverflowError:  # a whole number beyond all floats
        inside = False
    if not inside:
        shown = "a huge number" if isinstance(value, int) and abs(value) >= 10**_SHOWN else str(value)
        raise ConfigError(f"{key} is {shown}; it must be {limits.words or 'a finite number'}")


def _number(limit: float) -> str:
    """`1,000` or `1.75`."""
    return f"{int(limit):,}" if limit == int(limit) else f"{limit:.3g}"


def is_finite(value: object) -> bool:
    """Return whether it is a number that a float can hold."""
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) < 2**1023
    return isinstance(value, float) and math.isfinite(value)


def falls(values: Sequence[float], high: float) -> bool:
    """Return whether numbers, one at least, fall from at most `high`, and all lie above 0."""
    return values[-1] > 0 and values[0] <= high and all(a > b for a, b in pairwise(values))


@cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in fields(kind)}


def _options(hint: Any) -> Iterator[Any]:
    """Yield a type, or the members of a union of types."""
    if get_origin(hint) in (Union, types.UnionType):
        yield from get_args(hint)
    else:
        yield hint
