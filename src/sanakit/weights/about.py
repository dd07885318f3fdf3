"""What a model says of itself in `sanakit.json`: its name, what it draws, and what it knows words for.

Only a model with a small vocabulary has one, for notes about prompts that it can't read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sanakit.base.errors import ConfigError
from sanakit.weights.formats.fields import known_fields

_LONGEST, _LINES = 200, 12  # characters of a text, texts of `knows`: what fits a note


@dataclass(frozen=True, kw_only=True)
class About:
    """name: "Toybox". draws: "solids on a floor". knows: a text for each kind of words, such as "floors: sand"."""

    name: str
    draws: str
    knows: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As `about` in sanakit.json."""
        return asdict(self) | {"knows": list(self.knows)}


def read_about(data: object, where: str) -> About | None:
    """Read `about` of sanakit.json; None if it is null. Raises ConfigError if it is something else than written."""
    if data is None:
        return None
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where}: about must be an object, not a {type(data).__name__}")
    found = known_fields(data, ("name", "draws", "knows"), f"{where}: about")
    knows = found.get("knows", [])
    if not isinstance(knows, list) or len(knows) > _LINES:
        raise ConfigError(f"{where}: knows of about must be a list of at most {_LINES} texts")
    texts = [found.get("name"), found.get("draws"), *knows]
    if not all(isinstance(text, str) and 0 < len(text) <= _LONGEST for text in texts):
        raise ConfigError(
            f"{where}: name, draws and knows of about must be texts of 1 to {_LONGEST} characters"
        )
    return About(name=found["name"], draws=found["draws"], knows=tuple(knows))
