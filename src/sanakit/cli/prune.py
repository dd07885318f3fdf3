"""`sanakit prune MODEL --keep N --out FOLDER`: the model without its least important blocks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sanakit.cli import options as o
from sanakit.cli.grow import show
from sanakit.cli.models import read_model
from sanakit.cli.say import note

if TYPE_CHECKING:
    from sanakit.weights import ModelSpec

_KeepOption = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=1, help="Keep this many blocks, the most important ones.", show_default=False
    ),
]
_ImportanceOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="What `sanakit importance --json` wrote for this model.", show_default=False
    ),
]
_BlocksOption = Annotated[
    str | None,
    typer.Option(metavar="N,...", help="Keep these blocks instead, counted from 0.", show_default=False),
]


def prune(
    model: Annotated[
        str, typer.Argument(help="The model: `toybox`, a folder, a published short name, or a hub id.")
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Write the smaller model here.")],
    keep: _KeepOption = None,
    importance: _ImportanceOption = None,
    by: Annotated[
        str,
        typer.Option(metavar="NAME", help="Which measure decides: rise, or similarity as published."),
    ] = "rise",
    ends: Annotated[
        int,
        typer.Option(
            metavar="N", min=0, help="Keep this many of the first and of the last blocks in any case."
        ),
    ] = 1,
    blocks: _BlocksOption = None,
    ignore_config_fields: o.IgnoreOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the model at FOLDER.")] = False,
    as_json: o.JsonOption = False,
    debug: o.DebugOption = False,
) -> None:
    """Write a model with fewer blocks. It draws worse until it is trained on: see recipes/recover.py."""
    from sanakit.adapt.depth import plan_pruning
    from sanakit.base.errors import RequestError
    from sanakit.pipeline.depth import write_reshaped

    if (blocks is None) == (keep is None):
        raise RequestError("say what to keep: give --blocks N,..., or --keep N with --importance FILE")
    if (keep is None) != (importance is None):
        raise RequestError(
            "--keep needs --importance FILE, which `sanakit importance --json FILE` writes"
            if importance is None
            else "--importance decides with --keep N; --blocks names the blocks itself"
        )
    found = read_model(model, o.parse_fields(ignore_config_fields))
    if importance is not None and keep is not None:
        stay = _most_important(found, importance, keep, by, ends)
    else:
        stay = _numbers(blocks or "")
    plan = plan_pruning(found.transformer.depth, stay)
    config = write_reshaped(found, plan, out, force=force)
    show(out, found.transformer, config, plan, as_json)


def _most_important(found: ModelSpec, file: Path, keep: int, by: str, ends: int) -> list[int]:
    """Return blocks that stay. Raises RequestError for measures of a model of another depth; notes those of others."""
    from sanakit.base.errors import RequestError
    from sanakit.evaluation.importance import most_important, read_importance
    from sanakit.pipeline.components import fingerprint

    measured, weights = read_importance(file)
    if len(measured) != found.transformer.depth:
        raise RequestError(
            f"{file} measures {len(measured)} blocks, and the model has {found.transformer.depth}"
        )
    if weights != fingerprint(found):
        note(f"{file} was measured on other weights.")
    return most_important(measured, keep, by=by, ends=ends)


def _numbers(text: str) -> list[int]:
    from sanakit.base.echo import quoted
    from sanakit.base.errors import RequestError

    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise RequestError(f"--blocks must be numbers such as 0,1,4, not {quoted(text)}") from None
