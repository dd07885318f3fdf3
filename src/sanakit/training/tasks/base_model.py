"""The model that a run starts from, with the parts that its config puts in the place of the model's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sanakit.base.errors import ConfigError
from sanakit.training.config import TrainConfig
from sanakit.weights import (
    Hints,
    ModelSpec,
    read_model_spec,
    resolve,
    with_decoder,
    with_text_encoder,
)

__all__ = ["read_base"]


def read_base(config: TrainConfig, announce: Callable[[str], object]) -> ModelSpec:
    """Read the base model; `announce` gets sentences about what is fetched and what is assumed about a file.

    Raises ConfigError, WeightsError or ModelNotFoundError.
    """
    found = _read_model(config, announce)
    if config.base_autoencoder is not None:
        found = with_decoder(found, config.base_autoencoder, announce=announce)
    if config.text.base is not None:
        source = resolve(config.text.base, announce=announce)
        found = with_text_encoder(found, source, widen=config.model.start == "scratch")
    return found


def _read_model(config: TrainConfig, announce: Callable[[str], object]) -> ModelSpec:
    """Read the base model that its name gives.

    Raises ConfigError, WeightsError or ModelNotFoundError.
    """
    path, rest = resolve(config.base_model, announce=announce), config.base_file
    if rest is None:
        if path.is_file():
            raise ConfigError(
                f"base: {config.base_model} holds a transformer only; "
                "say what gives the rest, e.g. base_file.parts=toybox"
            )
        return _noted(read_model_spec(path), announce)
    if path.is_dir():
        raise ConfigError(
            f"base_file is for a base that is a file of weights, and {config.base_model} is a folder"
        )
    hints = Hints(config=_path(rest.config), like_model=rest.like_model, weights=rest.weights)
    found = read_model_spec(path, parts=resolve(rest.parts, announce=announce), hints=hints)
    return _noted(found, announce)


def _noted(found: ModelSpec, announce: Callable[[str], object]) -> ModelSpec:
    for note in found.notes:
        announce(note)
    return found


def _path(path: Path | None) -> Path | None:
    return None if path is None else path.expanduser()
