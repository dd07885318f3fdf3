"""`sanakit edit PICTURE`: change a picture, or a part of it; `outputs.py` draws and writes.

Bad input is refused before weights are loaded and before a file is touched.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sanakit.base.errors import PictureError, RequestError
from sanakit.base.sizes import Size
from sanakit.cli import options as o
from sanakit.cli.recreate import differences, load_like
from sanakit.pipeline.inputs import InputImage
from sanakit.pipeline.request import ImageRequest

if TYPE_CHECKING:
    from sanakit.pipeline.png import Record

VARY_STRENGTH = 0.7
"""Of `--vary`: colours and details change with the seed, most of the layout stays."""

_PictureArgument = Annotated[
    Path | None, typer.Argument(metavar="PICTURE", help="The picture to change.", show_default=False)
]
_PromptOption = Annotated[
    str | None,
    typer.Option(
        "--prompt",
        metavar="TEXT",
        help="What the picture should show; by default the prompt inside a picture made by sanakit.",
        show_default="the picture's own",
    ),
]
_VaryOption = Annotated[
    bool,
    typer.Option(
        "--vary",
        help=f"Draw variations, another for each --seed: --strength is {VARY_STRENGTH:g} unless given.",
        show_default=False,
    ),
]


@o.request_options(command="edit")
def edit(
    picture: _PictureArgument = None,
    prompt: _PromptOption = None,
    vary: _VaryOption = False,
    size: o.SizeOption = None,
    like: o.LikeOption = None,
    out: o.OutOption = None,
    grid: o.GridOption = None,
    sign: o.SignOption = None,
    show_prompt: o.ShowPromptOption = False,
    model: o.ModelOption = None,
    parts: o.PartsOption = None,
    config: o.ConfigOption = None,
    like_model: o.LikeModelOption = None,
    weights: o.WeightsOption = None,
    variant: o.VariantOption = None,
    ignore_config_fields: o.IgnoreOption = None,
    decoder: o.DecoderOption = None,
    device: o.DeviceOption = None,
    dtype: o.DtypeOption = None,
    fast: o.FastOption = None,
    threads: o.ThreadsOption = None,
    as_json: o.JsonOption = False,
    debug: o.DebugOption = False,
    **fields: Any,
) -> None:
    """Change a picture by words: all of it, the white part of a mask, or new margins around it.

    The result has the picture's size, and what a mask keeps comes back to the bit.
    """
    from sanakit.cli.outputs import choose_target, draw
    from sanakit.pipeline.png import read_picture

    record = None if like is None else read_picture(like)
    given = o.given_fields(fields, record) | ({} if size is None else asdict(Size.parse(size)))
    given |= {"strength": VARY_STRENGTH} if vary and "strength" not in given else {}
    request = _request(picture, prompt, given, record)
    changed = o.check_inputs([request], record)
    target = choose_target(out, request.count, bool(grid), sign)
    opened = load_like(
        record, model, device, dtype, parts=parts, decoder=decoder, variant=variant, fast=fast, threads=threads,
        ignore_config_fields=o.parse_fields(ignore_config_fields), hints=o.hints_of(config, like_model, weights),
    )  # fmt: skip
    notes = [] if record is None else [*changed, *differences(record, like, opened)]
    draw(opened, [request], target, grid=bool(grid), notes=notes, show_prompt=show_prompt, as_json=as_json)


def _request(
    picture: Path | None, prompt: str | None, given: dict[str, Any], record: Record | None
) -> ImageRequest:
    """Make the request; with `--like` that of a picture, changed by the options. Raises RequestError, PictureError."""
    source: dict[str, Any] = {} if picture is None else {"source": InputImage.read(picture)}
    if record is not None:
        words = {} if prompt is None else {"prompt": prompt}
        request = record.request.replace(**source, **words, **given)
        if request.source is None:
            raise RequestError("the picture of --like was not an edit: say which PICTURE to change")
        return request
    if picture is None:
        raise RequestError("say what to change: give a PICTURE, or --like")
    return ImageRequest(prompt=_own_prompt(picture) if prompt is None else prompt, **source, **given)


def _own_prompt(picture: Path) -> str:
    """Return what the picture was drawn from. Raises RequestError if it doesn't say."""
    from sanakit.pipeline.png import read_picture

    try:
        return read_picture(picture).request.prompt
    except PictureError:
        raise RequestError(
            f"say what the picture is to show: {picture} holds no prompt of its own, so give --prompt"
        ) from None
