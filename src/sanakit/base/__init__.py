"""Floor 0: small values and decisions that every other package may use; imports nothing of ours.

errors      the exception tree                 values      TextStates
sizes       of pictures, grids, buckets        noise       seed -> noise
precision   device and dtype with a reason     dialect     official and diffusers readings
files       atomic writes, new names           sentinel    who made the NaN
drafts      temporary files, and their sweep   folders     swapped all at once
locks       who holds a folder                 renames     those that `os` does not have
echo        strangers' text made safe to show  alone       work timed on one core
chip        what the CPU is and may use        measured    what was measured here, kept
aligned     tensors at whole cache lines       heap        where tensors get their memory

Names are resolved when first used: errors and what is printed do not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sanakit.base.bounds import MAX_SEED
    from sanakit.base.dialect import DIFFUSERS, OFFICIAL, Dialect
    from sanakit.base.echo import printable, printable_lines, quoted, shorten
    from sanakit.base.errors import (
        ConfigError,
        DataError,
        InputError,
        ModelNotFoundError,
        NumericsError,
        OutputError,
        PictureError,
        RequestError,
        SanakitError,
        ShortageError,
        WeightsError,
    )
    from sanakit.base.files import atomic_write, ensure_writable_folder, write_new
    from sanakit.base.folders import new_folder
    from sanakit.base.locks import hold
    from sanakit.base.precision import DTYPES, Precision, decide
    from sanakit.base.seeds import batch_indices, hash_seed, hash_uniform, noise_stream
    from sanakit.base.sentinel import check_finite, find_nonfinite_layer
    from sanakit.base.sizes import BUCKETS, SIZE_STEP, Grid, Size, nearest_bucket
    from sanakit.base.values import TextStates

_HOMES = {
    "dialect": "DIFFUSERS OFFICIAL Dialect",
    "echo": "printable printable_lines quoted shorten",
    "errors": "ConfigError DataError InputError ModelNotFoundError NumericsError "
    "OutputError PictureError RequestError SanakitError ShortageError WeightsError",
    "files": "atomic_write ensure_writable_folder write_new",
    "folders": "new_folder",
    "sizes": "BUCKETS SIZE_STEP Grid Size nearest_bucket",
    "locks": "hold",
    "bounds": "MAX_SEED",
    "seeds": "batch_indices hash_seed hash_uniform noise_stream",
    "precision": "DTYPES Precision decide",
    "sentinel": "check_finite find_nonfinite_layer",
    "values": "TextStates",
}
"""Module -> its public names."""

__all__ = [
    "BUCKETS",
    "DIFFUSERS",
    "DTYPES",
    "MAX_SEED",
    "OFFICIAL",
    "SIZE_STEP",
    "ConfigError",
    "DataError",
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
    "ShortageError",
    "Size",
    "TextStates",
    "WeightsError",
    "atomic_write",
    "batch_indices",
    "check_finite",
    "decide",
    "ensure_writable_folder",
    "find_nonfinite_layer",
    "hash_seed",
    "hash_uniform",
    "hold",
    "nearest_bucket",
    "new_folder",
    "noise_stream",
    "printable",
    "printable_lines",
    "quoted",
    "shorten",
    "write_new",
]


def __getattr__(name: str) -> object:
    """Imports the home of a public name on first use. Raises AttributeError for any other name."""
    for home, names in _HOMES.items():
        if name in names.split():
            value: object = getattr(import_module(f"sanakit.base.{home}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'sanakit.base' has no attribute {name!r}")
