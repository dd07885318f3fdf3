"""Models as commands read them: by name, with what is downloaded and what is assumed said on stderr."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sanakit.cli.say import note, notify

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from sanakit.weights import ModelSpec


def read_model(model: str | Path, ignored: Collection[str] = ()) -> ModelSpec:
    """Read what a model is, and print its notes.

    ignored: unknown fields of its configs to pass over. Raises ModelNotFoundError or WeightsError.
    """
    from sanakit.weights import read_model_spec, resolve

    found = read_model_spec(resolve(model, announce=notify), ignore=ignored)
    for text in found.notes:
        note(text)
    return found
