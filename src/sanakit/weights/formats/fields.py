"""Reading configuration files strictly: every field known, every value of its type, errors that name the field.

A newer release may write a field that is unknown here. Where it is null, or at a value that is listed as changing
nothing, the file is read with a note; any other one refuses the file, until its name is among `UnknownFields.ignore`.
"""

from __future__ import annotations

import json
import math
import stat
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from sanakit.base.echo import printable, quoted
from sanakit.base.errors import ConfigError
from sanakit.base.json_text import parse_json

# The release whose files ours are compared with; loaders only report it.
DIFFUSERS_VERSION = "0.42.1"
# Past this a number of channels is a damaged file, whose model could not even be described.
MAX_WIDTH = 1 << 16

_MAX_BYTES = 16 * 2**20
_MAX_DEPTH = 64  # no configuration nests deeper than five; Python's own limit depends on who calls
# Bookkeeping of any release, for every class: settings of the library that don't change the computation.
_ANYWHERE: dict[str, tuple[object, ...]] = {
    "dtype": ("float32", "float16", "bfloat16"),
    "torch_dtype": ("float32", "float16", "bfloat16"),
    "gradient_checkpointing": (False, True),
    "attention_backend": ("native",),
}


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=2)


@dataclass(frozen=True, kw_only=True)
class UnknownFields:
    """How unknown fields of a configuration file are treated.

    ignore: names of fields to read as if they were not there. note: is called with a sentence on each ignored field.
    """

    ignore: frozenset[str] = frozenset()
    note: Callable[[str], object] = _warn


STRICT = UnknownFields()
"""Nothing is ignored; notes are warnings."""


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; `-Infinity` is accepted, as diffusers writes it.

    Raises ConfigError when the file is missing, too large, not UTF-8, not JSON, or holds something else.
    """
    try:
        found = path.stat()
        if found.st_size > _MAX_BYTES:
            raise ConfigError(
                f"{path} is larger than {_MAX_BYTES >> 20} MiB: that isn't a configuration file"
            )
        if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
            raise ConfigError(f"{path} can't be read: it isn't a regular file")
        data = parse_json(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path} is missing: the folder is incomplete or not in the diffusers layout"
        ) from error
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not valid JSON: {printable(error, 200)}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} should hold a JSON object, not a {type(data).__name__}")
    if not _is_shallow(data):
        raise ConfigError(f"{path} is nested more than {_MAX_DEPTH} deep: that isn't a configuration file")
    return data


def _is_shallow(data: object) -> bool:
    """Return whether a value nests at most `_MAX_DEPTH` deep, found without recursion."""
    level: list[object] = [data]
    for _ in range(_MAX_DEPTH):
        inside = [value.values() if isinstance(value, dict) else value for value in level]
        level = [item for part in inside if isinstance(part, Collection) for item in part]
        level = [item for item in level if isinstance(item, dict | list)]
        if not level:
            return True
    return False


def to_json(data: Mapping[str, Any]) -> bytes:
    """As diffusers writes it: sorted keys, indent 2, trailing newline, `-Infinity` allowed."""
    return (json.dumps(data, indent=2, sort_keys=True) + "\n").encode()


def check_class(data: Mapping[str, Any], wanted: str, where: str) -> None:
    """Raise ConfigError when the file names another class than `wanted` (none at all is accepted)."""
    found = data.get("_class_name", wanted)
    if found != wanted:
        raise ConfigError(f"{where}: _class_name is {quoted(found)}, but only {wanted!r} is read here")


def known_fields(
    data: Mapping[str, Any],
    known: Collection[str],
    where: str,
    unknown: UnknownFields = STRICT,
    harmless: Mapping[str, tuple[object, ...]] = _ANYWHERE,
) -> dict[str, Any]:
    """Return the fields of a file that are `known`, or private (`_name`), and not to be ignored; notes for the others.

    harmless: values of unknown fields that change nothing, by name. Raises ConfigError for what is left.
    """
    strange = {key: value for key, value in data.items() if key not in known and not key.startswith("_")}
    for key in sorted(unknown.ignore & data.keys()):
        unknown.note(f"{where}: {printable(key, 80)} was ignored as asked: it is {quoted(data[key])}")
    left = []
    for key, value in sorted(strange.items()):
        if key in unknown.ignore:
            continue
        if value is None or _is_listed(value, (*harmless.get(key, ()), *_ANYWHERE.get(key, ()))):
            unknown.note(
                f"{where}: the unknown field {printable(key, 80)} was passed over: it is {quoted(value)}"
            )
        else:
            left.append(key)
    if left:
        raise _unknown(left, known, where)
    return {key: value for key, value in data.items() if key not in strange and key not in unknown.ignore}


def _is_listed(value: object, values: tuple[object, ...]) -> bool:
    """By value and by kind: false is not 0."""
    return any(isinstance(value, bool) == isinstance(one, bool) and value == one for one in values)


def _unknown(names: list[str], known: Collection[str], where: str) -> ConfigError:
    near = get_close_matches(names[0][:80], known, n=1, cutoff=0.0)
    more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
    way = ",".join(printable(name, 80) for name in names[:8])
    return ConfigError(
        f"{where}: unknown field {quoted(names[0])}{more}; the nearest known one is {near[0]!r}; "
        f"if the model is the same without, pass it over with --ignore-config-fields {way}"
    )


class Fields:
    """The fields of one configuration with their defaults; names that start with `_` are private and skipped.

    harmless: values of unknown fields that change nothing, by name.
    Raises ConfigError, here or in a getter, naming the file, the field and (for an unknown one) the nearest name.
    """

    def __init__(
        self,
        data: Mapping[str, Any],
        defaults: Mapping[str, Any],
        where: str,
        unknown: UnknownFields = STRICT,
        harmless: Mapping[str, tuple[object, ...]] = _ANYWHERE,
    ) -> None:
        self.where = where
        found = known_fields(data, defaults, where, unknown, harmless)
        self.given = frozenset(found.keys() & defaults.keys())
        self.values = {**defaults, **{key: value for key, value in found.items() if key in defaults}}

    def fail(self, name: str, why: str) -> ConfigError:
        """Return the error for a field: `where: field is value, why`."""
        value = self.values[name]
        plain = value is None or isinstance(value, bool)
        shown = json.dumps(value) if plain else quoted(value)
        return ConfigError(f"{self.where}: {name} is {shown}, {why}")

    def integer(self, name: str, low: int = 1, high: int = MAX_WIDTH) -> int:
        """Return a whole number in low..high."""
        value = self.values[name]
        if type(value) is not int or not low <= value <= high:
            raise self.fail(name, f"but must be a whole number from {low} to {high}")
        return value

    def number(self, name: str, low: float = 0.0, high: float = 1e9) -> float:
        """Return a number above 0, at least `low` and at most `high`."""
        value = self.values[name]
        if type(value) not in (int, float) or not low <= value <= high or not value > 0:
            least = f"of at least {low:g}" if low else "above 0"
            raise self.fail(name, f"but must be a number {least}, at most {high:g}")
        return float(value)

    def typed(self, default: object, name: str) -> None:
        """Check that a field that changes nothing here is of its default's kind: else the file is damaged."""
        value = self.values[name]
        if isinstance(default, bool):
            self.flag(name)
        elif isinstance(default, int | float):
            if type(value) not in (int, float) or math.isnan(value):
                raise self.fail(name, "but must be a number")
        elif isinstance(default, str):
            if not isinstance(value, str):
                raise self.fail(name, "but must be a word")
        elif not (value is None or isinstance(value, str | list)):
            raise self.fail(name, "but must be null, a word or a list")

    def flag(self, name: str) -> bool:
        """Read true or false."""
        value = self.values[name]
        if type(value) is not bool:
            raise self.fail(name, "but must be true or false")
        return value

    def choice(self, name: str, allowed: Collection[str | None]) -> str | None:
        """One of the allowed words."""
        value = self.values[name]
        if (value is not None and not isinstance(value, str)) or value not in allowed:
            words = ", ".join("null" if word is None else repr(word) for word in allowed)
            raise self.fail(name, f"but must be one of {words}")
        return value

    def exactly(self, name: str, wanted: object, why: str) -> None:
        """Check the one value that can be represented; `why` says what another value would need."""
        value = self.values[name]
        if value != wanted or isinstance(value, bool) != isinstance(wanted, bool):
            raise self.fail(name, f"but {why}")

    def integers(self, name: str, low: int = 1, high: int = MAX_WIDTH) -> tuple[int, ...]:
        """Return a list of whole numbers, each in low..high, at most 16."""
        value = self.values[name]
        if not isinstance(value, list | tuple) or len(value) > 16:
            raise self.fail(name, "but must be a list of at most 16 whole numbers")
        if any(type(item) is not int or not low <= item <= high for item in value):
            raise self.fail(name, f"but must hold whole numbers from {low} to {high}")
        return tuple(value)

    def words(self, name: str, count: int, allowed: Collection[str]) -> tuple[str, ...]:
        """One word for all, or a list of `count` words."""
        value = self.values[name]
        words = (value,) * count if isinstance(value, str) else value
        if not isinstance(words, list | tuple) or len(words) != count:
            raise self.fail(name, f"but must be one word or a list of {count}")
        if any(not isinstance(word, str) or word not in allowed for word in words):
            raise self.fail(name, f"but may only hold {', '.join(map(repr, allowed))}")
        return tuple(words)
