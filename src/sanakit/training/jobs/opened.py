"""The set of a run: opened, and cut down to a list of keys where one is given, and to what has a caption."""

from __future__ import annotations

from sanakit.base.errors import ConfigError
from sanakit.data import PictureSet, open_set
from sanakit.data.labels import indices_of, read_keys
from sanakit.training.config import TrainConfig

_NAMED = 5


def opened(config: TrainConfig) -> PictureSet:
    """The pictures that a run may use. Raises DataError where they can't be opened, ConfigError where none is left."""
    pictures = open_set(config.data.path)
    if config.data.keys is not None:
        pictures = pictures.only(indices_of(pictures, read_keys(config.data.keys), config.data.keys))
    _check_held(config, pictures)
    return pictures


def captioned(config: TrainConfig, pictures: PictureSet) -> tuple[PictureSet, tuple[str, ...]]:
    """The pictures that are trained on with text, and the keys of those that are passed over for want of a caption.

    Raises ConfigError where none is left.
    """
    usable = pictures.captioned
    if config.data.uncaptioned == "empty" or len(usable) == len(pictures):
        return pictures, ()
    if not usable:
        raise ConfigError(
            f"none of the {len(pictures)} pictures of {pictures.path} has a caption: write them (docs/captions.md), "
            "or say data.uncaptioned=empty to train without"
        )
    left = pictures.only(usable)
    _check_held(config, left)
    with_text = set(usable)
    return left, tuple(item.key for index, item in enumerate(pictures) if index not in with_text)


def uncaptioned_sentence(keys: tuple[str, ...]) -> str:
    """What is said of the pictures that are passed over."""
    named = ", ".join(keys[:_NAMED]) + (" ..." if len(keys) > _NAMED else "")
    plural = "pictures" if len(keys) > 1 else "picture"
    return f"{len(keys):,} {plural} without a caption ({named}); data.uncaptioned=empty trains on them, too"


def _check_held(config: TrainConfig, pictures: PictureSet) -> None:
    if config.data.held >= len(pictures):
        raise ConfigError(f"data.held is {config.data.held}, but the set has {len(pictures)} pictures")
