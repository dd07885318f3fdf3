"""`sanakit convert SOURCE TARGET`: between an official `.pth` and a diffusers folder, both ways; and into int8."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from sanakit.cli.options import DebugOption, JsonOption
from sanakit.cli.say import say

_PTH = (".pth", ".pt")


def convert(
    source: Annotated[Path, typer.Argument(help="An official .pth, or a diffusers folder.")],
    target: Annotated[Path, typer.Argument(help="A folder to write, or a .pth.")],
    dtype: Annotated[
        str | None,
        typer.Option(help="fp32, bf16, fp16; int8 for a whole model.", show_default="as in the source"),
    ] = None,
    variant: Annotated[str | None, typer.Option(help="Which weights of a folder, such as fp16.")] = None,
    cross_heads: Annotated[
        int | None, typer.Option(help="Heads of the cross-attention, where the .pth does not tell.")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Pixels the .pth was trained at: 512, 1024, 2048 or 4096.")
    ] = None,
    position_scale: Annotated[
        float | None, typer.Option(help="Of the positional table: 1 at 2K, 2 at 4K.")
    ] = None,
    shard_size: Annotated[str, typer.Option(help="Largest weight file, such as 5GB.")] = "5GB",
    force: Annotated[bool, typer.Option("--force", help="Replace what is at TARGET.")] = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Convert a transformer between an official .pth and a diffusers folder. No value changes unless --dtype asks.

    With --dtype int8 a whole model (a name or a folder) is written to a folder, its transformer's wide layers in int8.
    """
    if dtype == "int8":
        _refuse_pth_only(cross_heads, image_size, position_scale)
        _to_int8(source, target, as_json, force=force, variant=variant, max_shard_size=shard_size)
        return
    options: dict[str, Any] = {"dtype": _dtype(dtype), "variant": variant, "force": force}
    if source.suffix in _PTH:
        _check_target(target, folder=True)
        from sanakit.weights import pth_to_diffusers

        config = pth_to_diffusers(
            source, target, cross_heads=cross_heads, sample_size=_latent_side(image_size),
            position_scale=position_scale, max_shard_size=shard_size, **options,
        )  # fmt: skip
    else:
        _check_target(target, folder=False)
        from sanakit.weights import diffusers_to_pth

        config = diffusers_to_pth(source, target, **options)
    told = {"path": str(target), "depth": config.depth, "width": config.width}
    say(json.dumps(told) if as_json else f"{target}  (depth {config.depth}, width {config.width})")


def _refuse_pth_only(*given: float | None) -> None:
    """Options that complete a `.pth` have no meaning for a whole model, which says it all itself."""
    from sanakit.base.errors import RequestError

    if any(value is not None for value in given):
        raise RequestError(
            "--cross-heads, --image-size and --position-scale are for a .pth, not for --dtype int8."
        )


def _to_int8(source: Path, target: Path, as_json: bool, **options: Any) -> None:
    _check_target(target, folder=True)
    from sanakit.pipeline import write_int8_folder
    from sanakit.weights import read_descriptor, resolve

    report = write_int8_folder(read_descriptor(resolve(source)), target, **options)
    told = {"path": str(target), "int8": len(report.replaced), "kept": report.kept}
    words = f"{target}  ({len(report.replaced)} layers in int8, {len(report.kept)} as they were)"
    say(json.dumps(told) if as_json else words)


def _dtype(name: str | None) -> Any:
    if name is None:
        return None
    from sanakit.base.errors import RequestError
    from sanakit.base.precision import DTYPES

    if name not in DTYPES:
        raise RequestError(f"unknown dtype {name!r}: use fp32, bf16, fp16 or int8.")
    return DTYPES[name]


def _latent_side(pixels: int | None) -> int | None:
    if pixels is None:
        return None
    from sanakit.base.errors import RequestError

    if pixels < 32 or pixels % 32:
        raise RequestError(f"--image-size must be a multiple of 32, not {pixels}.")
    return pixels // 32


def _check_target(target: Path, folder: bool) -> None:
    """A `.pth` becomes a folder and a folder becomes a `.pth`; anything else is a slip."""
    from sanakit.base.errors import OutputError

    if folder and target.suffix in _PTH:
        raise OutputError(f"a .pth is converted to a diffusers folder, and {target} is named like a .pth.")
    if not folder and target.suffix not in _PTH:
        raise OutputError(f"a diffusers folder is converted to a .pth, and {target} is not named like one.")
