"""Floor 5: from a request to images. Data flows request -> plan -> prompt -> denoiser -> decoder -> PNG.

request, fields, parameters    what is asked for, and the same as A1111 text
inputs       files and pictures that a request needs
plan         everything decided about a request before a network runs
model        Model: what stays between requests      events     what happens meanwhile
generation   one request: its stages in order        loading    from the name of a model to a Model
origin       what a model was loaded by
prompt       stage one: text to states              components folder -> loaded networks
denoiser     stage two: noise to latent             engine     how a network runs
batching     one pass of it for many images
decoder      stage three: latent to image           memory     bytes per stage against what is free
threads      CPU threads and seconds per stage      shapes     configurations without weights
png          PNG with the request inside            quantised  a model folder in int8
depth        a model folder with more or fewer blocks

Names are resolved when first used: a request can be made or an image inspected without the model code.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sanakit.pipeline.decoder import decode
    from sanakit.pipeline.denoiser import denoise
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
    from sanakit.pipeline.inputs import InputFile, InputImage
    from sanakit.pipeline.loading import load
    from sanakit.pipeline.memory import StageMemory, available_bytes, estimate, fits_together
    from sanakit.pipeline.model import Model
    from sanakit.pipeline.plan import Plan, make_plan
    from sanakit.pipeline.png import (
        Record,
        free_name,
        make_grid,
        read_picture,
        write_new_picture,
        write_picture,
    )
    from sanakit.pipeline.prompt import encode_prompt
    from sanakit.pipeline.quantised import write_int8_folder
    from sanakit.pipeline.request import Defaults, ImageRequest
    from sanakit.pipeline.shapes import Shapes

_HOMES = {
    "decoder": ("decode",),
    "denoiser": ("denoise",),
    "events": (
        "Cancelled", "Done", "Event", "Note", "PictureDone", "StageDone", "StageStarted", "Started", "Step",
    ),
    "inputs": ("InputFile", "InputImage"),
    "loading": ("load",),
    "model": ("Model",),
    "memory": ("StageMemory", "available_bytes", "estimate", "fits_together"),
    "png": ("Record", "free_name", "make_grid", "read_picture", "write_new_picture", "write_picture"),
    "plan": ("Plan", "make_plan"),
    "prompt": ("encode_prompt",),
    "quantised": ("write_int8_folder",),
    "request": ("Defaults", "ImageRequest"),
    "shapes": ("Shapes",),
}  # fmt: skip

__all__ = [
    "Cancelled",
    "Defaults",
    "Done",
    "Event",
    "ImageRequest",
    "InputFile",
    "InputImage",
    "Model",
    "Note",
    "PictureDone",
    "Plan",
    "Record",
    "Shapes",
    "StageDone",
    "StageMemory",
    "StageStarted",
    "Started",
    "Step",
    "available_bytes",
    "decode",
    "denoise",
    "encode_prompt",
    "estimate",
    "fits_together",
    "free_name",
    "load",
    "make_grid",
    "make_plan",
    "read_picture",
    "write_int8_folder",
    "write_new_picture",
    "write_picture",
]


def __getattr__(name: str) -> object:
    """Import the home of a public name on first use. Raises AttributeError for any other name."""
    for home, names in _HOMES.items():
        if name in names:
            value: object = getattr(import_module(f"sanakit.pipeline.{home}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'sanakit.pipeline' has no attribute {name!r}")
