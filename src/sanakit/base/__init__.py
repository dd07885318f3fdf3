"""Floor 0: small values and decisions that every other package may use; imports nothing of ours.

errors      the exception tree                 values      TextStates
grid        sizes and aspect-ratio buckets     noise       seed -> noise
precision   device and dtype with a reason     dialect     official and diffusers readings
files       atomic writes                      sentinel    who made the NaN
"""

from sanakit.base.dialect import DIFFUSERS, OFFICIAL, Dialect
from sanakit.base.errors import (
    ConfigError,
    InputError,
    ModelNotFoundError,
    NumericsError,
    OutputError,
    PictureError,
    RequestError,
    SanakitError,
    WeightsError,
)
from sanakit.base.files import atomic_write, ensure_writable_folder
from sanakit.base.grid import BUCKETS, SIZE_STEP, Grid, check_size, nearest_bucket
from sanakit.base.noise import MAX_SEED, seeded_noise
from sanakit.base.precision import DTYPES, Precision, decide
from sanakit.base.sentinel import check_finite, find_nonfinite_layer
from sanakit.base.values import TextStates

__all__ = [
    "BUCKETS",
    "DIFFUSERS",
    "DTYPES",
    "MAX_SEED",
    "OFFICIAL",
    "SIZE_STEP",
    "ConfigError",
    "Dialect",
    "Grid",
    "InputError",
    "ModelNotFoundError",
    "NumericsError",
    "OutputError",
    "PictureError",
    "Precision",
    "RequestError",
    "SanakitError",
    "TextStates",
    "WeightsError",
    "atomic_write",
    "check_finite",
    "check_size",
    "decide",
    "ensure_writable_folder",
    "find_nonfinite_layer",
    "nearest_bucket",
    "seeded_noise",
]
