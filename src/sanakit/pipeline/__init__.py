"""Floor 5: from a request to pictures. Data flows request -> text -> denoise -> decode -> PNG.

request      what is asked for                     parameters   the same as A1111 text
events       what happens meanwhile                assemble     folder -> loaded parts
stages       text, denoise, decode as functions    generate     Model: a generator of events
output       PNG with the request inside           memory       bytes per stage against what is free
engine       how a model runs                      quantised    a model folder in int8

Names are resolved when first used: a request can be made or a picture inspected without the model code.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sanakit.pipeline.events import (
        Cancelled,
        Done,
        Event,
        Note,
        PictureDone,
        StageDone,
        StageStarted,
        Started,
        Step,
    )
    from sanakit.pipeline.generate import Model, load
    from sanakit.pipeline.memory import Shapes, StageMemory, available_bytes, estimate, fits_together
    from sanakit.pipeline.output import (
        Record,
        free_name,
        make_grid,
        read_picture,
        write_new_picture,
        write_picture,
    )
    from sanakit.pipeline.quantised import write_int8_folder
    from sanakit.pipeline.request import Defaults, ImageRequest

_HOMES = {
    "events": (
        "Cancelled", "Done", "Event", "Note", "PictureDone", "StageDone", "StageStarted", "Started", "Step",
    ),
    "generate": ("Model", "load"),
    "memory": ("Shapes", "StageMemory", "available_bytes", "estimate", "fits_together"),
    "output": ("Record", "free_name", "make_grid", "read_picture", "write_new_picture", "write_picture"),
    "quantised": ("write_int8_folder",),
    "request": ("Defaults", "ImageRequest"),
}  # fmt: skip

__all__ = [
    "Cancelled",
    "Defaults",
    "Done",
    "Event",
    "ImageRequest",
    "Model",
    "Note",
    "PictureDone",
    "Record",
    "Shapes",
    "StageDone",
    "StageMemory",
    "StageStarted",
    "Started",
    "Step",
    "available_bytes",
    "estimate",
    "fits_together",
    "free_name",
    "load",
    "make_grid",
    "read_picture",
    "write_int8_folder",
    "write_new_picture",
    "write_picture",
]


def __getattr__(name: str) -> object:
    """Imports the home of a public name on first use. Raises AttributeError for any other name."""
    for home, names in _HOMES.items():
        if name in names:
            value: object = getattr(import_module(f"sanakit.pipeline.{home}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'sanakit.pipeline' has no attribute {name!r}")
