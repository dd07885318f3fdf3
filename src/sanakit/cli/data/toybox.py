"""`sanakit data toybox`: a folder of pictures with captions of the small world that ships, to try training with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from sanakit.cli.options import DebugOption
from sanakit.cli.say import say

_LARGEST = 8192  # pixels of a side: past it a picture fills the memory of a worker


def toybox(
    out: Annotated[
        Path, typer.Argument(help="The folder to write to; pictures that exist are kept.", show_default=False)
    ],
    count: Annotated[int, typer.Option(metavar="N", help="Number of pictures.")] = 1000,
    size: Annotated[
        int, typer.Option(metavar="N", help="Side of the pictures in pixels, a multiple of 32.")
    ] = 256,
    split: Annotated[
        Literal["train", "held_out"],
        typer.Option(help="Use the combinations of training, or those held out from it."),
    ] = "train",
    captions: Annotated[int, typer.Option(metavar="N", help="Most captions per picture.")] = 2,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the scenes.")] = 0,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Number of processes.", show_default="one per core")
    ] = None,
    compiled: Annotated[
        bool,
        typer.Option(
            "--compiled", help="Compile the renderer: faster after half a minute, needs a C++ compiler."
        ),
    ] = False,
    debug: DebugOption = False,
) -> None:
    """Render scenes of the Toybox world with captions. Go on with `sanakit train`, or `sanakit data check`."""
    from sanakit.base.errors import RequestError
    from sanakit.base.sizes import check_side
    from sanakit.cli.progress import ProgressBar
    from sanakit.toybox.folder import write_pictures

    check_side("--size", size)
    if count < 1 or captions < 1:
        raise RequestError(f"--count and --captions must be at least 1, not {count} and {captions}")
    if size > _LARGEST or (workers is not None and workers < 1):
        raise RequestError(f"--size is at most {_LARGEST} and --workers at least 1, not {size} and {workers}")
    done = 0
    processes = workers or os.cpu_count() or 1
    walk = write_pictures(
        out, count, size=size, split=split, seed=seed, captions=captions, workers=processes, compiled=compiled
    )
    with ProgressBar() as bar:
        for done in walk:
            bar.update("rendering", done, count)
    say(f"{done} pictures of {size} px are in {out}")
