"""Which layers an edit leaves as they are, and why: data that edits share."""

from __future__ import annotations

from fnmatch import fnmatchcase

_ONE_ROW = "one row per step: nothing to gain, and every block reads it"

RARE: dict[str, str] = {
    "time.*": _ONE_ROW,
    "guidance.*": _ONE_ROW,
    "modulation": _ONE_ROW,
    "text.*": "runs once per picture",
}
"""Layers of the transformer that hardly run (`*` for any part of a name), and how often they do."""


def reason_to_keep(name: str, kept: dict[str, str]) -> str | None:
    """Why the layer `name` stays, by the first pattern that it fits; None where none does."""
    return next((why for pattern, why in kept.items() if fnmatchcase(name, pattern)), None)
