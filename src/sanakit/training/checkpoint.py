"""The state of a run on disk: written to a temporary name, synced, renamed; read with weights_only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sanakit.base.errors import WeightsError
from sanakit.base.files import atomic_write

_NAME = "state.pt"


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Replace the folder's checkpoint by `state`; a crash at any moment leaves the old or the new one whole."""
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / _NAME, lambda path: torch.save(state, path))


def load_state(folder: Path) -> dict[str, Any] | None:
    """The folder's checkpoint, or None where there is none.

    Raises:
        WeightsError: if the file cannot be read.
    """
    path = folder / _NAME
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise WeightsError(
            f"{path} is not a readable checkpoint ({error}); delete it to start again."
        ) from error
    return state
