"""Options that several commands share, and the small texts they parse."""

from __future__ import annotations

import re
from typing import Annotated

import typer

ModelOption = Annotated[
    str | None,
    typer.Option(help="A model folder, a hub id, or the shipped `toybox`.", show_default="toybox"),
]
DeviceOption = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, mps or auto.", show_default="auto")
]
DtypeOption = Annotated[str | None, typer.Option(help="fp32, bf16, fp16 or auto.", show_default="auto")]
SizeOption = Annotated[
    str | None,
    typer.Option(metavar="WxH", help="Pixels, multiples of 32.", show_default="the model's own"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, one object per line.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def parse_size(text: str) -> tuple[int, int]:
    """`512x768` -> (512, 768), width first; one number stands for a square. Raises RequestError."""
    match = re.fullmatch(r"\s*(\d{1,6})(?:[xX×](\d{1,6}))?\s*", text)
    if match is None:
        from sanakit.base.errors import RequestError

        raise RequestError(f"a size looks like 512x768 (width x height), not {text!r}.")
    return int(match[1]), int(match[2] or match[1])


def parse_interval(text: str) -> tuple[float, float]:
    """`0.1,0.9` -> (0.1, 0.9). Raises RequestError."""
    try:
        low, high = (float(part) for part in re.split(r"[,:]", text))
    except ValueError:
        from sanakit.base.errors import RequestError

        raise RequestError(f"a CFG interval looks like 0.1,0.9, not {text!r}.") from None
    return low, high
