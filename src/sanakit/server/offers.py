"""LoRAs and ControlNets that clients may ask for, by name: what lies in two folders when the server starts.

A name is looked up in this list and never becomes part of a path.
"""

from __future__ import annotations

from pathlib import Path

from sanakit.base.echo import as_utf8
from sanakit.base.errors import ConfigError

_LORAS = (".safetensors",)
_CONTROLS = (".safetensors", ".pth")


def loras_in(folder: Path | None) -> dict[str, Path]:
    """Name -> file of the LoRAs in a folder. Raises ConfigError if it isn't there."""
    return {path.name: path for path in _entries(folder) if path.suffix in _LORAS and path.is_file()}


def controls_in(folder: Path | None) -> dict[str, Path]:
    """Name -> folder or file of the ControlNets in a folder. Raises ConfigError if it isn't there."""
    return {path.name: path for path in _entries(folder) if path.is_dir() or path.suffix in _CONTROLS}


def _entries(folder: Path | None) -> list[Path]:
    """What lies in a folder, in order; hidden files and names that are no UTF-8 are passed over."""
    if folder is None:
        return []
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {folder}")
    found = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(path.absolute() for path in found if as_utf8(path.name) == path.name)
