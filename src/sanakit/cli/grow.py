"""`sanakit grow MODEL --depth N --out FOLDER`: a deeper model that begins where a shallower one is.

The last blocks are left out first, as was published, for they have specialised on the output.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sanakit.cli import options as o
from sanakit.cli.models import read_model
from sanakit.cli.say import note, say

if TYPE_CHECKING:
    from collections.abc import Collection

    from sanakit.adapt.depth import DepthPlan
    from sanakit.transformer import TransformerConfig

_KeysOption = Annotated[
    bool, typer.Option("--keys", help="With --plan: print every tensor, its shape, and what it begins as.")
]


def grow(
    model: Annotated[
        str, typer.Argument(help="The model: `toybox`, a folder, a published short name, or a hub id.")
    ],
    depth: Annotated[int, typer.Option(metavar="N", min=1, help="Number of blocks of the grown model.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write it here.", show_default=False)
    ] = None,
    drop: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            help="Leave out this many of the last blocks first.",
        ),
    ] = 2,
    how: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="What the new blocks are: partial (fresh, and without effect at first), cyclic (the whole stack "
            "again), block-expand (each block several times), progressive (each block, then copies without effect).",
        ),
    ] = "partial",
    qk_norm: Annotated[
        bool, typer.Option("--qk-norm", help="Add norms of queries and keys, which changes the picture.")
    ] = False,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of fresh weights.")] = 0,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print what would be written, from the configuration alone.")
    ] = False,
    keys: _KeysOption = False,
    ignore_config_fields: o.IgnoreOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the model at FOLDER.")] = False,
    as_json: o.JsonOption = False,
    debug: o.DebugOption = False,
) -> None:
    """Write a model with more blocks that computes what the blocks it keeps compute, ready to be trained on."""
    from sanakit.adapt.depth import plan_growth
    from sanakit.base.errors import RequestError
    from sanakit.pipeline.depth import write_reshaped

    if out is None and not plan:
        raise RequestError(
            "say where to write the model: give --out FOLDER, or --plan to see what it would be"
        )
    if keys and not plan:
        raise RequestError("--keys goes with --plan")
    ignored = o.parse_fields(ignore_config_fields)
    if plan or out is None:
        old = planned_from(model, ignored)
        show_plan(old, plan_growth(old.depth, depth, drop=drop, how=how), qk_norm, keys, as_json)
        return
    found = read_model(model, ignored)
    chosen = plan_growth(found.transformer.depth, depth, drop=drop, how=how)
    tell_norms(found.transformer, qk_norm)
    config = write_reshaped(found, chosen, out, qk_norm=qk_norm, seed=seed, force=force)
    show(out, found.transformer, config, chosen, as_json)


def show_plan(old: TransformerConfig, chosen: DepthPlan, qk_norm: bool, keys: bool, as_json: bool) -> None:
    """Print what a plan would write, and with `keys` every tensor of it."""
    from sanakit.pipeline.depth import reshaped_config

    tell_norms(old, qk_norm)
    new = reshaped_config(old, chosen, qk_norm)
    show(None, old, new, chosen, as_json)
    if keys:
        show_keys(old, new, chosen, as_json)


def planned_from(model: str, ignored: Collection[str]) -> TransformerConfig:
    """The configuration to plan with, of a published model without its files. Raises as `check_reshapable`."""
    from sanakit.pipeline.depth import check_reshapable
    from sanakit.transformer import PRESETS
    from sanakit.weights import PUBLISHED, is_here

    if model in PUBLISHED and not is_here(model):
        return PRESETS[model]
    found = read_model(model, ignored)
    check_reshapable(found)
    return found.transformer


def tell_norms(old: TransformerConfig, qk_norm: bool) -> None:
    """Note that norms which are added change the picture."""
    if qk_norm and not old.qk_norm:
        note(
            "queries and keys get norms with weights of 1: the picture changes until the model is trained on."
        )


def show_keys(old: TransformerConfig, new: TransformerConfig, plan: DepthPlan, as_json: bool) -> None:
    """Print every tensor of a planned model, a line each."""
    from dataclasses import asdict

    from sanakit.pipeline.depth import planned_keys

    for one in planned_keys(old, new, plan):
        shape = " x ".join(map(str, one.shape))
        say(json.dumps(asdict(one)) if as_json else f"{one.key:<64} {shape:<20} {one.origin}")


def show(
    folder: Path | None, old: TransformerConfig, new: TransformerConfig, plan: DepthPlan, as_json: bool
) -> None:
    """Print a model of another depth: its blocks and parameters, before and now."""
    from sanakit.pipeline.shapes import transformer_parameters

    before, after = transformer_parameters(old), transformer_parameters(new)
    if as_json:
        blocks = [{"block": origin.block, "silent": origin.silent} for origin in plan]
        facts = {"path": None if folder is None else str(folder), "depth": new.depth, "parameters": after}
        say(json.dumps(facts | {"blocks": blocks}))
        return
    fresh = sum(origin.block is None for origin in plan)
    silent = sum(origin.silent for origin in plan)
    parts = [f"{old.depth} to {new.depth} blocks"]
    parts += [f"{fresh} fresh"] if fresh else []
    parts += [f"{silent} without effect at first"] if silent else []
    size = f"{before / 1e6:,.1f} to {after / 1e6:,.1f} M parameters"
    say(f"{'it would have' if folder is None else folder}  ({', '.join(parts)}; {size})")
