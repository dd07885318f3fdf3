"""`sanakit generate PROMPT`: prompts and options to requests, which `outputs.py` draws and writes.

Bad input is refused before weights are loaded and before a file is touched.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sanakit.base.errors import RequestError
from sanakit.base.sizes import Size
from sanakit.cli import best_of as b
from sanakit.cli import options as o
from sanakit.cli.prompts import read_prompts
from sanakit.cli.recreate import differences, load_like
from sanakit.pipeline.request import ImageRequest

if TYPE_CHECKING:
    from sanakit.pipeline.png import Record

_PromptArgument = Annotated[
    str | None, typer.Argument(help='What to draw; "" draws without a prompt.', show_default=False)
]
_PromptFileOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Read one prompt per line; - reads standard input.", show_default=False
    ),
]


@o.request_options()
def generate(
    prompt: _PromptArgument = None,
    size: o.SizeOption = None,
    prompt_file: _PromptFileOption = None,
    like: o.LikeOption = None,
    best_of: b.BestOfOption = None,
    judge: b.JudgeOption = None,
    keep: b.KeepOption = None,
    until: b.UntilOption = None,
    draft_steps: b.DraftStepsOption = None,
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
    together: o.TogetherOption = None,
    as_json: o.JsonOption = False,
    debug: o.DebugOption = False,
    **fields: Any,
) -> None:
    """Draw pictures from a prompt.

    The model that ships, Toybox, draws one to four solids on a floor under a light, such as "two red cubes on snow".

    A named FILE.png is replaced, but only once the new picture is complete.
    """
    from sanakit.cli.outputs import choose_target, draw
    from sanakit.pipeline.png import read_picture

    record = None if like is None else read_picture(like)
    given = o.given_fields(fields, record) | ({} if size is None else asdict(Size.parse(size)))
    requests = _requests(_prompts(prompt, prompt_file), given, record)
    changed = o.check_inputs(requests, record)
    grid = grid if grid is not None else record is not None and record.grid
    pictures = sum(request.count for request in requests) if best_of is None else (keep or 1) * len(requests)
    target = choose_target(out, pictures, grid, sign)
    opened = load_like(
        record, model, device, dtype, parts=parts, decoder=decoder, variant=variant, fast=fast, threads=threads,
        ignore_config_fields=o.parse_fields(ignore_config_fields), hints=o.hints_of(config, like_model, weights),
        together=1 if together is None else together,
    )  # fmt: skip
    notes = [] if record is None else [*changed, *differences(record, like, opened)]
    best = b.read_best_of(opened, best_of, judge, keep, until, draft_steps, together)
    draw(
        opened, requests, target, grid=grid, notes=notes, show_prompt=show_prompt, as_json=as_json, best=best
    )


def _requests(prompts: list[str], given: dict[str, Any], record: Record | None) -> list[ImageRequest]:
    """One request per prompt; with `--like` those of the picture, changed by what was given explicitly.

    Raises RequestError for anything a request refuses, and for no prompt at all.
    """
    if record is None:
        if not prompts:
            raise RequestError("say what to draw: give a PROMPT, --prompt-file or --like")
        return [ImageRequest(prompt=prompt, **given) for prompt in prompts]
    if prompts:
        return [record.request.replace(prompt=prompt, **given) for prompt in prompts]
    return [request.replace(**given) for request in (record.request, *record.others)]


def _prompts(prompt: str | None, file: Path | None) -> list[str]:
    """Return the prompt, or those of a file, one per line. Raises RequestError for both."""
    if file is None:
        return [] if prompt is None else [prompt]
    if prompt is not None:
        raise RequestError("give a PROMPT or --prompt-file, not both")
    return read_prompts(file)
