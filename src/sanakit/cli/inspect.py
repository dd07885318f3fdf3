"""`sanakit inspect FILE`: what a picture was made from, or what a LoRA file or a ControlNet holds."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from sanakit.base.echo import printable
from sanakit.base.files import is_file, is_folder
from sanakit.cli.options import DebugOption, JsonOption
from sanakit.cli.say import note, say

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")


def inspect(
    file: Annotated[
        Path,
        typer.Argument(
            help="A picture written by sanakit, or by a program that writes `parameters`; a LoRA file; or a ControlNet."
        ),
    ],
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Print the request inside a picture, what a LoRA changes, or what a ControlNet is."""
    if _is_control(file):
        _inspect_control(file, as_json)
        return
    if file.suffix.lower() in _WEIGHTS and is_file(file):
        _inspect_lora(file, as_json)
        return
    _inspect_picture(file, as_json)


def _inspect_picture(file: Path, as_json: bool) -> None:
    from sanakit.pipeline.png import read_picture
    from sanakit.pipeline.provenance import MEANINGS, TERMS
    from sanakit.pipeline.signing import read_signature

    found = read_picture(file)
    signature = read_signature(file)
    for text in found.notes:
        note(text)
    record = found.to_json()
    if as_json:
        signed = None if signature is None else signature.to_json()
        say(json.dumps(record | {"digital_source_type": found.source_type, "signature": signed}))
        return
    lines = _lines(record)
    if found.source_type is not None:
        term = found.source_type.removeprefix(TERMS)
        lines.append(("AI label", f"{term}, {MEANINGS.get(found.source_type, 'a term of IPTC')}"))
    lines += [] if signature is None else [("signature", str(signature))]
    for name, value in lines:
        # Further lines are set in: no prompt can write a field of its own.
        say(f"{printable(name, 40) + ':':14}" + f"\n{'':14}".join(value.splitlines()))


def _inspect_lora(file: Path, as_json: bool) -> None:
    from sanakit.weights import read_lora

    lora = read_lora(file)
    for text in lora.notes:
        note(text)
    lows = lora.layers.values()
    facts: dict[str, Any] = {
        "names": lora.form,
        "base": lora.base or None,
        "layers": len(lora.layers),
        "ranks": list(lora.ranks),
        "scales": sorted({round(low.scale, 6) for low in lows}),
        "width": next((low.outputs for name, low in lora.layers.items() if name.endswith(".out")), None),
        "magnitudes": any(low.magnitude is not None for low in lows),
        "changed": list(dict.fromkeys(re.sub(r"^blocks\.\d+\.", "", name) for name in lora.layers)),
        "blocks": sorted(
            {int(match[1]) for name in lora.layers if (match := re.match(r"blocks\.(\d+)\.", name))}
        ),
    }
    if as_json:
        say(json.dumps(facts))
        return
    for name, value in facts.items():
        if value not in (None, []):
            say(f"{name + ':':14}{_text(value)}")


def _is_control(path: Path) -> bool:
    """Return whether it is a folder, or a file with the tensors of an official ControlNet."""
    if is_folder(path):
        return True
    if path.suffix.lower() not in _WEIGHTS or not is_file(path):
        return False
    from sanakit.weights import holds_control

    return holds_control(path)


def _inspect_control(path: Path, as_json: bool) -> None:
    from sanakit.weights import describe_control

    config = describe_control(path)
    net = config.backbone
    facts: dict[str, Any] = {
        "kind": "ControlNet",
        "wiring": "official" if config.lead else "diffusers",
        "copied_blocks": config.copies,
        "steers": list(range(config.first, config.first + config.copies)),
        "width": net.width,
        "latent_channels": net.latent_channels,
        "patch_size": net.patch_size,
        "text_width": net.text_width,
        "qk_norm": net.qk_norm,
        "guidance_embed": net.guidance_embed,
    }
    if as_json:
        say(json.dumps(facts))
        return
    for name, value in facts.items():
        say(f"{name.replace('_', ' ') + ':':17}{_text(value)}")


def _lines(record: dict[str, Any]) -> list[tuple[str, str]]:
    """Name and text of what is worth a line: fields that say nothing are left out."""
    request = dict(record["request"])
    size = f"{request.pop('width')}x{request.pop('height')}"
    lines = [("prompt", request.pop("prompt")), ("size", size)]
    lines += [(name, _text(value)) for name, value in request.items() if value not in (None, "")]
    lines += [("grid", "yes")] if record["grid"] else []
    lines += [("and prompt", other["prompt"]) for other in record.get("others", [])]
    return lines + list(record["made"].items())


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict) or (isinstance(value, list) and any(isinstance(one, dict) for one in value)):
        return json.dumps(value, ensure_ascii=False)
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
