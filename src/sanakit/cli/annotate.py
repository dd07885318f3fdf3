"""`sanakit annotate PICTURE|FOLDER --kind canny`: control pictures, to look at, to draw with, or to train from."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sanakit.cli import options as o
from sanakit.cli.say import note, notify, say

if TYPE_CHECKING:
    from PIL.Image import Image

    from sanakit.data.annotators import Annotate

BESIDE = ".control.png"
"""Ending of a control picture beside its picture, where training looks for it."""

_FormOption = Annotated[
    str | None,
    typer.Option(
        "--kind",
        metavar="NAME",
        help="The annotator: canny, soft, tile, grid, grey or mask.",
        show_default=False,
    ),
]
_ModelOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Instead of --kind, a model of transformers for depth or pose: a folder or a hub id.",
        show_default=False,
    ),
]
_SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=X", help="A setting of the annotator, such as sigma=2; may be repeated."
    ),
]
_OutOption = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        help="The file or folder to write to; files that are there are replaced.",
        show_default="x.control.png beside x.png",
    ),
]
_SizeOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Scale each picture first, until its shorter side has N pixels.",
        show_default="as it is",
    ),
]


def annotate(
    path: Annotated[
        Path,
        typer.Argument(metavar="PICTURE", help="A picture, or a folder of pictures.", show_default=False),
    ],
    kind: _FormOption = None,
    model: _ModelOption = None,
    settings: _SetOption = None,
    out: _OutOption = None,
    size: _SizeOption = None,
    device: o.DeviceOption = None,
    debug: o.DebugOption = False,
) -> None:
    """Make the control picture of a picture, or of each picture of a folder: what a ControlNet reads.

    `sanakit generate --control` draws with one; `sanakit train` with `task: control` learns from pairs, and makes them
    itself unless they are there.
    """
    from sanakit.base.errors import PictureError, RequestError
    from sanakit.base.files import atomic_write, ensure_writable_folder

    if size is not None and not 1 <= size <= 16384:
        raise RequestError(f"--size is a number of pixels from 1 to 16384, not {size}")
    make, written = _chosen(kind, model, settings or [], device), 0
    for data, target in _work(path, out):
        try:
            made = make(_scaled(data, size))
        except PictureError as error:
            if path.is_file():
                raise PictureError(f"{path}: {error}") from None
            note(f"passed over: {target.stem}: {error}")
            continue
        ensure_writable_folder(target.absolute().parent)
        atomic_write(target, partial(made.save, format="PNG"))
        written += 1
        last = target
    if not written:
        raise RequestError(f"there is no picture in {path} that can be read")
    say(str(last) if written == 1 else f"{written} control pictures, the last is {last}")


def _chosen(kind: str | None, model: str | None, settings: list[str], device: str | None) -> Annotate:
    """Raise RequestError, ConfigError or ModelNotFoundError."""
    from sanakit.base.errors import RequestError
    from sanakit.data.annotators import ANNOTATORS, Annotator

    if (kind is None) == (model is None):
        raise RequestError(
            f"name an annotator (--kind {', '.join(ANNOTATORS)}), or give a --model for depth or pose"
        )
    if model is not None:
        from sanakit.base.precision import decide
        from sanakit.data.labels.dense import model_annotator
        from sanakit.weights import resolve_snapshot

        if settings:
            raise RequestError("--set is for an annotator (--kind), and a --model has no settings")
        return model_annotator(resolve_snapshot(model, announce=notify), decide(device, "fp32"))
    return Annotator(name=str(kind), settings=dict(_setting(text) for text in settings)).function()


def _setting(text: str) -> tuple[str, float]:
    from sanakit.base.echo import quoted
    from sanakit.base.errors import RequestError

    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise RequestError(f"--set takes a name and a number, such as sigma=2, not {quoted(text)}") from None


def _work(path: Path, out: Path | None) -> Iterator[tuple[bytes, Path]]:
    """Yield each picture's bytes, and where its control picture goes. Raises DataError or PictureError."""
    from sanakit.base.errors import PictureError
    from sanakit.data import open_set
    from sanakit.data.items import ByteRange

    path = path.expanduser()
    if not path.is_dir():
        if not path.exists():
            raise PictureError(f"the picture {path} is not there")
        file = out is not None and out.suffix.lower() == ".png" and not out.is_dir()
        beside = path.with_name(path.stem + BESIDE)
        yield ByteRange(path).read(), beside if out is None else out if file else out / f"{path.stem}.png"
        return
    pictures = open_set(path)
    for index, item in enumerate(pictures):
        name = Path(item.key)
        if out is None and name.name.endswith(".control"):
            continue
        yield pictures.read(index), path / f"{name}{BESIDE}" if out is None else out / f"{name}.png"


def _scaled(data: bytes, size: int | None) -> Image:
    from sanakit.data.image import cut_picture, picture_size

    width, height = picture_size(data)
    scale = 1 if size is None else size / min(width, height)
    wide, tall = max(1, round(width * scale)), max(1, round(height * scale))
    return cut_picture(data, (wide, tall), (0, 0, wide, tall))
