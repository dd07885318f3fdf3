"""The set of a run: opened, and cut down to a list of keys where one is given."""

from __future__ import annotations

from sanakit.base.errors import ConfigError
from sanakit.training.config import TrainConfig
from sanakit.training.data import PictureSet, open_set
from sanakit.training.labels import places_of, read_keys


def opened(config: TrainConfig) -> PictureSet:
    """The pictures that a run may use. Raises DataError where they can't be opened, ConfigError where none is left."""
    pictures = open_set(config.data.path)
    if config.data.keys is not None:
        pictures = pictures.only(places_of(pictures, read_keys(config.data.keys), config.data.keys))
    if config.data.held >= len(pictures):
        raise ConfigError(f"data.held is {config.data.held}, but the set has {len(pictures)} pictures")
    return pictures
