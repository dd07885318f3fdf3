"""The exception tree: every error that sanakit raises on purpose.

    SanakitError                  exit code 1
    ├── NumericsError             NaN or Inf left a stage
    └── InputError                exit code 2: the caller can fix it
        ├── RequestError          a value in the request (size, steps, prompt, seed, device)
        ├── ConfigError           a config file or a configuration value
        ├── WeightsError          weights that are missing, truncated or mismatched
        ├── ModelNotFoundError    a name that isn't a folder, hub id or shipped model
        ├── DataError             a set of pictures to train on
        ├── OutputError           a path that can't be written
        ├── ShortageError         more memory than there is
        └── PictureError          a picture that can't be read, or carries no request

A message is one sentence: what is wrong, where, and what to do.
"""

from __future__ import annotations

from typing import ClassVar


class SanakitError(Exception):
    """Root of the tree; `exit_code` is what the command line ends with."""

    exit_code: ClassVar[int] = 1


class NumericsError(SanakitError):
    """A tensor that leaves a stage holds NaN or Inf; the message names the stage and the layer."""


class InputError(SanakitError):
    """Bad input from the caller; nothing was written."""

    exit_code: ClassVar[int] = 2


class RequestError(InputError):
    """A value of the request is out of range or contradicts another."""


class ConfigError(InputError):
    """A configuration has unknown, missing or contradictory fields."""


class WeightsError(InputError):
    """Weights are missing, truncated, unsafe to read, or do not fit the configuration."""


class ModelNotFoundError(InputError):
    """No model has that name."""


class DataError(InputError):
    """A set of pictures is missing, empty, or of an unknown form."""


class OutputError(InputError):
    """The output path can't be written."""


class ShortageError(InputError):
    """There is not enough memory."""


class PictureError(InputError):
    """A picture can't be read, or holds no request."""
