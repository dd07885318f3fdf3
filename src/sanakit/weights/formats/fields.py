"""Reading configuration files strictly: every field known, every value of its type, errors that name the field."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from sanakit.base.errors import ConfigError

__all__ = ["DIFFUSERS_VERSION", "MAX_WIDTH", "Fields", "check_class", "read_json", "to_json"]

# The release whose files ours are compared with; loaders only report it.
DIFFUSERS_VERSION = "0.42.1"
# Past this a number of channels is a damaged file, whose model could not even be described.
MAX_WIDTH = 1 << 16

_MAX_BYTES = 16 * 2**20


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; `-Infinity` is accepted, as diffusers writes it.

    Raises ConfigError when the file is missing, too large, not UTF-8, not JSON, or holds something else.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ConfigError(f"{path} is larger than {_MAX_BYTES >> 20} MiB: that is no configuration file")
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path} is missing: the folder is incomplete or not in the diffusers layout"
        ) from error
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} should hold a JSON object, not a {type(data).__name__}")
    return data


def to_json(data: Mapping[str, Any]) -> bytes:
    """As diffusers writes it: sorted keys, indent 2, trailing newline, `-Infinity` allowed."""
    return (json.dumps(data, indent=2, sort_keys=True) + "\n").encode()


def check_class(data: Mapping[str, Any], wanted: str, where: str) -> None:
    """Raises ConfigError when the file names another class than `wanted` (none at all is accepted)."""
    found = data.get("_class_name", wanted)
    if found != wanted:
        raise ConfigError(f"{where}: _class_name is {str(found)[:80]!r}, but only {wanted!r} is read here")


class Fields:
    """The fields of one configuration with their defaults; names that start with `_` are private and skipped.

    Raises ConfigError, here or in a getter, naming the file, the field and (for an unknown one) the nearest name.
    """

    def __init__(self, data: Mapping[str, Any], defaults: Mapping[str, Any], where: str) -> None:
        self.where = where
        unknown = sorted(key for key in data if key not in defaults and not key.startswith("_"))
        if unknown:
            near = get_close_matches(unknown[0], defaults, n=1, cutoff=0.0)
            more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
            raise ConfigError(
                f"{where}: unknown field {unknown[0][:80]!r}{more}; the nearest known one is {near[0]!r}"
            )
        self.values = {**defaults, **{key: value for key, value in data.items() if key in defaults}}

    def fail(self, name: str, why: str) -> ConfigError:
        """The error for a field: `where: field is value, why`."""
        return ConfigError(
            f"{self.where}: {name} is {json.dumps(self.values[name], default=str)[:80]}, {why}"
        )

    def integer(self, name: str, low: int = 1, high: int = MAX_WIDTH) -> int:
        """A whole number in low..high."""
        value = self.values[name]
        if type(value) is not int or not low <= value <= high:
            raise self.fail(name, f"but must be a whole number from {low} to {high}")
        return value

    def number(self, name: str, high: float = 1e9) -> float:
        """A number above 0, at most `high`."""
        value = self.values[name]
        if type(value) not in (int, float) or not 0 < value <= high:
            raise self.fail(name, f"but must be a number above 0, at most {high:g}")
        return float(value)

    def flag(self, name: str) -> bool:
        """true or false."""
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
        """The one value that can be represented; `why` says what another value would need."""
        value = self.values[name]
        if value != wanted or isinstance(value, bool) != isinstance(wanted, bool):
            raise self.fail(name, f"but {why}")

    def integers(self, name: str, low: int = 1, high: int = MAX_WIDTH) -> tuple[int, ...]:
        """A list of whole numbers, each in low..high, at most 16."""
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
