"""`sanakit convert SOURCE TARGET`: files of weights and folders, both ways; into int8; with LoRAs; and LoRAs alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sanakit.cli import options as o
from sanakit.cli.models import read_model
from sanakit.cli.say import note, notify, say

if TYPE_CHECKING:
    from sanakit.weights import Hints

_COMPLETING = "--config, --like-model, --weights, --parts, --cross-heads, --image-size and --position-scale"

_SourceArgument = Annotated[
    Path,
    typer.Argument(help="A file of weights (.pth, .safetensors, ...), a diffusers folder, or a LoRA file."),
]
_TargetArgument = Annotated[
    Path,
    typer.Argument(help="The folder to write, or a file named .pth, .pt, .ckpt, .bin or .safetensors."),
]
_DtypeOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Convert values to fp32, bf16 or fp16; int8 is for a whole model.",
        show_default="as in the source",
    ),
]
_VariantOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Read this variant of a folder's weights, such as fp16."),
]
_PartsOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Write the folder of a whole model; the other parts are those of this model.",
        show_default=False,
    ),
]
_CrossHeadsOption = Annotated[
    int | None,
    typer.Option(metavar="N", help="Number of heads of the cross-attention, if the file doesn't say."),
]
_ImageSizeOption = Annotated[
    int | None,
    typer.Option(metavar="N", help="Side in pixels that the model was trained at: 512, 1024, 2048 or 4096."),
]
_PositionScaleOption = Annotated[
    float | None,
    typer.Option(metavar="X", help="Scale of the positional table: 1 for 2K models, 2 for 4K models."),
]
_ShardSizeOption = Annotated[
    str, typer.Option(metavar="SIZE", help="Split the weights into files of at most this size.")
]
_LoRAOption = Annotated[
    list[str] | None,
    typer.Option(
        "--lora",
        metavar="FILE[:X]",
        help="Merge this LoRA into a whole model (a name or a folder), which is written to a folder; may be repeated.",
        show_default="none",
    ),
]
_ToOption = Annotated[
    str | None,
    typer.Option(
        "--to",
        metavar="diffusers|comfyui",
        help="SOURCE is a LoRA file: write it for this program.",
        show_default=False,
    ),
]


def convert(
    source: _SourceArgument,
    target: _TargetArgument,
    dtype: _DtypeOption = None,
    variant: _VariantOption = None,
    ignore_config_fields: o.IgnoreOption = None,
    config: o.ConfigOption = None,
    like_model: o.LikeModelOption = None,
    weights: o.WeightsOption = None,
    parts: _PartsOption = None,
    cross_heads: _CrossHeadsOption = None,
    image_size: _ImageSizeOption = None,
    position_scale: _PositionScaleOption = None,
    shard_size: _ShardSizeOption = "5GB",
    lora: _LoRAOption = None,
    to: _ToOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is at TARGET.")] = False,
    as_json: o.JsonOption = False,
    debug: o.DebugOption = False,
) -> None:
    """Convert a transformer between a file of weights and a diffusers folder. No value changes unless --dtype asks.

    An autoencoder's file with its authors' names becomes a diffusers folder, too, and back; an official ControlNet
    becomes one. What a file of weights can't hold is written beside it as x.json, and read from there.
    With --dtype int8 a whole model (a name or a folder) is written to a folder, its transformer's wide layers in int8,
    with --lora one with LoRAs merged into its weights. With --to a LoRA file is written for another program.
    """
    hints = o.hints_of(
        config, like_model, weights,
        cross_heads=cross_heads, sample_size=_latent_side(image_size), position_scale=position_scale,
    )  # fmt: skip
    completed = hints.given or parts is not None
    if to is not None:
        _refuse(
            completed or variant is not None or bool(lora), f"{_COMPLETING}, --variant and --lora", "a LoRA"
        )
        _convert_lora(source, target, to, dtype, force, as_json)
        return
    if lora:
        _refuse(completed, _COMPLETING, "--lora")
        _merge(source, target, lora, dtype, as_json, o.parse_fields(ignore_config_fields), force=force,
               variant=variant, max_shard_size=shard_size)  # fmt: skip
        return
    if dtype == "int8":
        _refuse(hints.given or parts is not None, _COMPLETING, "--dtype int8")
        _to_int8(
            source, target, as_json, o.parse_fields(ignore_config_fields), force=force, variant=variant,
            max_shard_size=shard_size,
        )  # fmt: skip
        return
    options = {"dtype": _dtype(dtype), "force": force}
    ignored = o.parse_fields(ignore_config_fields)
    _print_result(
        target, _convert(source, target, hints, options, parts, variant, shard_size, ignored), as_json
    )


def _convert(
    source: Path, target: Path, hints: Hints, options: dict[str, Any], parts: str | None, variant: str | None,
    shard_size: str, ignored: tuple[str, ...],
) -> Any:  # fmt: skip
    """Return the configuration of what was converted."""
    from sanakit import weights as w

    source = w.resolve(source, announce=notify)
    to_file = w.is_checkpoint_name(target)
    sharded = shard_size != "5GB"
    if source.is_dir():
        if not to_file:
            _refuse_target(target)
        _refuse(hints.given or parts is not None, _COMPLETING, "a folder, which says it all itself")
        _refuse_folders(sharded, "--shard-size")
        unknown = w.UnknownFields(ignore=frozenset(ignored), note=note)
        return w.folder_to_file(source, target, variant=variant, unknown=unknown, **options)
    _refuse_files(bool(ignored), "--ignore-config-fields")
    if to_file:
        _refuse_folders(parts is not None, "--parts")
        _refuse_folders(variant is not None, "--variant")
        _refuse_folders(sharded, "--shard-size")
        return w.file_to_file(source, target, hints=hints, announce=note, **options)
    whole = None if parts is None else w.resolve(parts, announce=notify)
    return w.file_to_folder(
        source, target, hints=hints, parts=whole, variant=variant, max_shard_size=shard_size, announce=note,
        **options,
    )  # fmt: skip


def _print_result(target: Path, config: Any, as_json: bool) -> None:
    copies = (
        {"copied_blocks": config.copies, "width": config.backbone.width} if hasattr(config, "copies") else {}
    )
    facts = copies | {
        name: getattr(config, name)
        for name in ("depth", "width", "latent_channels")
        if hasattr(config, name) and (name != "latent_channels" or not hasattr(config, "depth"))
    }
    words = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts.items())
    say(json.dumps({"path": str(target), **facts}) if as_json else f"{target}  ({words})")


def _refuse(given: bool, what: str, where: str) -> None:
    """Options that would be ignored are refused."""
    from sanakit.base.errors import RequestError

    if given:
        raise RequestError(f"{what} are for a .pth or another file of weights, not for {where}")


def _refuse_folders(given: bool, what: str) -> None:
    from sanakit.base.errors import RequestError

    if given:
        raise RequestError(f"{what} is for a folder that is written, and the target is a file")


def _refuse_files(given: bool, what: str) -> None:
    from sanakit.base.errors import RequestError

    if given:
        raise RequestError(f"{what} is for a folder that is read, and the source is a file")


def _refuse_target(target: Path) -> None:
    from sanakit.base.errors import OutputError

    raise OutputError(
        f"a folder is converted to a file, and {target} is not named like one: give it .pth or .safetensors"
    )


def _to_int8(source: Path, target: Path, as_json: bool, ignored: tuple[str, ...], **options: Any) -> None:
    from sanakit.base.errors import OutputError
    from sanakit.pipeline import write_int8_folder
    from sanakit.weights import is_checkpoint_name

    if is_checkpoint_name(target):
        raise OutputError(f"a model in int8 is a diffusers folder, and {target} is named like a file")
    found = read_model(source, ignored)
    report = write_int8_folder(found, target, **options)
    facts = {"path": str(target), "int8": len(report.replaced), "kept": report.kept}
    words = f"{target}  ({len(report.replaced)} layers in int8, {len(report.kept)} as they were)"
    say(json.dumps(facts) if as_json else words)


def _convert_lora(source: Path, target: Path, to: str, dtype: str | None, force: bool, as_json: bool) -> None:
    from sanakit.base.errors import OutputError, RequestError
    from sanakit.weights import LORA_FILE, LORA_TARGETS, read_lora, resolve_lora, write_lora
    from sanakit.weights.save import refuse_existing

    if to not in LORA_TARGETS:
        raise RequestError(f"--to is {' or '.join(LORA_TARGETS)}, not {to[:40]!r}")
    if target.suffix and target.suffix.lower() != ".safetensors":
        raise OutputError(f"a LoRA is written as safetensors, and {target} is named otherwise")
    path = target if target.suffix else target / LORA_FILE
    refuse_existing(path, force)
    found = read_lora(resolve_lora(source, announce=notify))
    for text in found.notes:
        note(text)
    write_lora(path, found, to, dtype=_dtype(dtype))
    facts = {"path": str(path), "layers": len(found.layers), "ranks": list(found.ranks)}
    words = f"{path}  ({len(found.layers)} layers, rank {', '.join(map(str, found.ranks))})"
    say(json.dumps(facts) if as_json else words)


def _merge(
    source: Path, target: Path, texts: list[str], dtype: str | None, as_json: bool, ignored: tuple[str, ...],
    **options: Any,
) -> None:  # fmt: skip
    from sanakit.base.errors import OutputError, RequestError
    from sanakit.pipeline.loras import LoRAFile
    from sanakit.pipeline.merged import write_merged_folder
    from sanakit.weights import is_checkpoint_name

    if is_checkpoint_name(target):
        raise OutputError(
            f"a model with LoRAs merged is a diffusers folder, and {target} is named like a file"
        )
    if dtype == "int8":
        raise RequestError("--lora and --dtype int8 are two steps: merge first, then convert the new folder")
    loras = [LoRAFile.parse(text, announce=notify) for text in texts]
    found = read_model(source, ignored)
    for text in (text for one in loras if one.lora is not None for text in one.lora.notes):
        note(text)
    write_merged_folder(found, target, loras, dtype=_dtype(dtype), **options)
    facts = {"path": str(target), "loras": [one.to_json() for one in loras]}
    words = f"{target}  ({', '.join(f'{one.name} at {one.weight:g}' for one in loras)} merged)"
    say(json.dumps(facts) if as_json else words)


def _dtype(name: str | None) -> Any:
    if name is None:
        return None
    from sanakit.base.errors import RequestError
    from sanakit.base.precision import DTYPES

    if name not in DTYPES:
        raise RequestError(f"unknown dtype {name!r}: use fp32, bf16, fp16 or int8")
    return DTYPES[name]


def _latent_side(pixels: int | None) -> int | None:
    if pixels is None:
        return None
    from sanakit.base.sizes import SIZE_STEP, check_side

    check_side("--image-size", pixels)
    return pixels // SIZE_STEP
