"""What a field of a request says of itself, once: its help, its check, and its name in a PNG's `parameters` text.

`ImageRequest` carries this as metadata of its fields. The options of `sanakit generate`, the text in pictures, `--like`
and the table in docs/cli.md are made from it, so a new option of a picture is one more field.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

from sanakit.base.bounds import falls, is_finite
from sanakit.base.echo import quoted
from sanakit.base.errors import RequestError
from sanakit.base.sizes import SIZE_STEP, check_side

Check = Callable[[str, Any], None]
"""Takes the name and the value of a field; raises RequestError. Those with bounds are values that state them."""


@dataclass(frozen=True, kw_only=True)
class RequestField:
    """A field of a request.

    kind: its type without None, such as `int` or `tuple[float, float]`. help: a phrase with a final period.
    metavar: how its value is written on the command line. shown_default: in words, if the default is None.
    png: its name in the `parameters` text; None if it is written in another way, or not at all.
    later: newer than the first version; JSON leaves it out at its default, so that older versions read that.
    take: makes the value of what a caller hands in, such as a path or the text of an option; leaves a value as it is.
    encode, decode: for a value made of parts: to what JSON holds, and back (raises RequestError).
    many: the option may be given several times; `take` gets the list of its texts.
    commands: which have it as an option. argument: its name where a command takes it as an argument instead.
    flag: the name of the option if it isn't that of the field, such as `--region` for `regions`.
    """

    name: str
    kind: Any
    default: Any
    check: Check
    help: str
    metavar: str | None = None
    shown_default: str | None = None
    png: str | None = None
    later: bool = False
    take: Callable[[Any], Any] | None = None
    encode: Callable[[Any], Any] | None = None
    decode: Callable[[Any], Any] | None = None
    many: bool = False
    commands: tuple[str, ...] = ("generate", "edit")
    argument: str | None = None
    flag: str | None = None

    def __post_init__(self) -> None:
        if (
            self.take is not None and self.decode is None
        ):  # else a path inside a stranger's record would be read
            raise ValueError(
                f"the field {self.name} takes other values and has no decode: records would reach take"
            )

    @property
    def option(self) -> str:
        """Its name on the command line."""
        return self.flag or f"--{self.name.replace('_', '-')}"

    def to_plain(self, value: Any) -> Any:
        """Return the value as JSON holds it."""
        if self.encode is not None:
            return None if value is None else self.encode(value)
        return list(value) if isinstance(value, tuple) else value

    def from_plain(self, value: Any) -> Any:
        """Inverse of `to_plain`. Raises RequestError if `decode` does."""
        if self.decode is not None:
            return None if value is None else self.decode(value)
        return tuple(value) if isinstance(value, list) else value


def about(help: str, check: Check, **more: Any) -> dict[str, Any]:
    """Metadata of a field that must be given; arguments as of `RequestField`."""
    return {"help": help, "check": check, **more}


def option(default: object, help: str, check: Check, **more: Any) -> Any:
    """Return a field with a default and its metadata; arguments as of `RequestField`."""
    return dataclasses.field(default=default, metadata=about(help, check, **more))


def read_fields(request: type) -> tuple[RequestField, ...]:
    """Return the fields of a request class in their order."""
    types = get_type_hints(request)
    return tuple(
        RequestField(
            name=field.name, kind=_without_none(types[field.name]), default=field.default, **field.metadata
        )
        for field in dataclasses.fields(request)
    )


def _without_none(kind: Any) -> Any:
    """`int` of `int | None`."""
    return get_args(kind)[0] if type(None) in get_args(kind) else kind


def text(name: str, value: object) -> None:
    """Refuse what isn't text that a file can hold."""
    if not isinstance(value, str):
        raise RequestError(f"{name} must be text, not {type(value).__name__}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise RequestError(f"{name} holds bytes that are not valid UTF-8") from None


def switch(name: str, value: object) -> None:
    """Refuse what isn't a bool."""
    if not isinstance(value, bool):
        raise RequestError(f"{name} must be true or false")


@dataclass(frozen=True)
class Whole:
    """A check for whole numbers from `low` to `high`. shown: how a message writes `high`."""

    low: int
    high: int
    shown: str | None = None

    def __call__(self, name: str, value: object) -> None:
        """Refuse any other value."""
        if isinstance(value, bool) or not isinstance(value, int) or not self.low <= value <= self.high:
            most = self.shown or self.high
            raise RequestError(
                f"{name} must be a whole number from {self.low} to {most}, not {quoted(value)}"
            )


@dataclass(frozen=True)
class Number:
    """A check for numbers from 0 to `high`."""

    high: float

    def __call__(self, name: str, value: object) -> None:
        """Refuse any other value."""
        if not (isinstance(value, int | float) and is_finite(value) and 0 <= value <= self.high):
            raise RequestError(f"{name} must be a number from 0 to {self.high:g}, not {quoted(value)}")


@dataclass(frozen=True)
class Side:
    """A check for widths and heights of at most `high` pixels."""

    high: int

    def __call__(self, name: str, value: object) -> None:
        """Refuse any other value."""
        Whole(SIZE_STEP, self.high)(name, value)
        assert isinstance(value, int)
        check_side(name, value)


def unit_interval(name: str, value: object) -> None:
    """Refuse what isn't a low and a high number in 0..1."""
    if not isinstance(value, tuple) or len(value) != 2 or not all(is_finite(edge) for edge in value):
        raise RequestError(f"{name} must be two numbers, low and high")
    if not 0 <= value[0] <= value[1] <= 1:
        raise RequestError(f"{name} must lie in 0..1 with low first, not {value[0]},{value[1]}")


def falling(high: float, most: int) -> Check:
    """Return a check for 1 to `most` numbers that fall from at most `high`, all above 0."""

    def check(name: str, value: object) -> None:
        if not isinstance(value, tuple) or not 0 < len(value) <= most or not all(map(is_finite, value)):
            raise RequestError(f"{name} must be 1 to {most} numbers")
        if not falls(value, high):
            shown = ",".join(f"{number:g}" for number in value[:8])
            raise RequestError(
                f"{name} must fall from at most {high:g}, and all lie above 0, not {quoted(shown)}"
            )

    return check


def blocks(high: int) -> Check:
    """Return a check for numbers of transformer blocks."""

    def check(name: str, value: object) -> None:
        if not isinstance(value, tuple) or not 0 < len(value) <= high:
            raise RequestError(f"{name} must name at least one block")
        for block in value:
            Whole(0, high)("a pag block", block)

    return check
