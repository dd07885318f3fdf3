"""LoRA files as diffusers and ComfyUI read them: names from `formats/lora_names`, q, k, v apart or in one pair."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sanakit.base.errors import WeightsError
from sanakit.base.files import ensure_writable_folder
from sanakit.layers.lora import LowRank
from sanakit.weights.formats.lora_names import published
from sanakit.weights.formats.lora_peft import METADATA, write_config
from sanakit.weights.lora import BASE, LoRA
from sanakit.weights.safetensors import write_safetensors

Target = Literal["diffusers", "comfyui"]
TARGETS: tuple[Target, ...] = ("diffusers", "comfyui")


def write_lora(
    path: Path,
    lora: LoRA,
    target: Target = "diffusers",
    *,
    dtype: torch.dtype | None = None,
    patch_size: int = 1,
) -> None:
    """Write a LoRA as one safetensors file that diffusers (`load_lora_weights`) or ComfyUI reads.

    dtype: None keeps that of the tensors. patch_size: of the transformer, if its patch embedding is adapted.
    Raises WeightsError for what the target can't hold, OutputError if the path can't be written.
    """
    write = _diffusers if target == "diffusers" else _comfyui
    tensors, metadata = write(lora, patch_size)
    ensure_writable_folder(path.absolute().parent)
    write_safetensors(path, tensors, dtype, metadata)


def _diffusers(lora: LoRA, patch: int) -> tuple[dict[str, Tensor], dict[str, str]]:
    known = published("diffusers", lora.depth, lora.sprint)
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    for layer, low in lora.layers.items():
        if layer.endswith(".depthwise"):
            raise WeightsError(
                f"{layer} is a depthwise convolution, and diffusers has no LoRA of those: write it for ComfyUI, or "
                "merge it into a model"
            )
        for at, group in enumerate(low.groups):
            name = _name(known, layer, group if low.of > 1 else None)
            down, up = _shaped(layer, *_trimmed(low.down[at], low.up[at]), patch)
            ranks[name], alphas[name] = len(down), low.scale * len(down)
            tensors |= _named(f"transformer.{name}", "lora_A", "lora_B", (down, up))
            if low.magnitude is not None:
                shape = (1, -1, 1, 1) if down.dim() == 4 else (-1,)
                tensors[f"transformer.{name}.lora_magnitude_vector"] = low.magnitude[at].reshape(shape)
    dora = {low.magnitude is not None for low in lora.layers.values()}
    if len(dora) > 1:
        raise WeightsError(
            "some layers of the LoRA have magnitudes and others none: diffusers reads all or none"
        )
    config = write_config(ranks, alphas, dora.pop(), lora.base)
    return tensors, {METADATA: json.dumps(config, indent=2, sort_keys=True)}


def _comfyui(lora: LoRA, patch: int) -> tuple[dict[str, Tensor], dict[str, str]]:
    known = published("official", lora.depth, lora.sprint)
    tensors: dict[str, Tensor] = {}
    for layer, low in lora.layers.items():
        name = f"diffusion_model.{_name(known, layer, None)}"
        down, up = _fused(layer, low)
        tensors |= _named(name, "lora_down", "lora_up", _shaped(layer, down, up, patch))
        tensors[f"{name}.alpha"] = torch.tensor(low.scale * len(down))
        if low.magnitude is not None:
            tensors[f"{name}.dora_scale"] = low.magnitude.reshape(-1, 1)
    return tensors, {BASE: lora.base} if lora.base else {}


def _name(known: Mapping[str, Mapping[int | None, str]], layer: str, group: int | None) -> str:
    if layer not in known:
        raise WeightsError(f"{layer} has no published name: it can't be written")
    return known[layer][group]


def _named(name: str, down: str, up: str, pair: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    return {f"{name}.{down}.weight": pair[0].contiguous(), f"{name}.{up}.weight": pair[1].contiguous()}


def _shaped(layer: str, down: Tensor, up: Tensor, patch: int) -> tuple[Tensor, Tensor]:
    """[r, K] and [o, r] as convolutions where the published layer is one."""
    kernels = {"patch": patch, "depthwise": 3, "expand": 1, "project": 1}
    side = kernels.get(layer.rpartition(".")[2])
    if side is None:
        return down, up
    return down.reshape(len(down), -1, side, side), up.reshape(*up.shape, 1, 1)


def _trimmed(down: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """Without the zeros that filled a lower rank up: trailing rows of `down` whose columns of `up` are zero, too."""
    used = (down != 0).any(dim=1) | (up != 0).any(dim=0)
    rank = int(used.nonzero().max()) + 1 if bool(used.any()) else len(down)
    return down[:rank], up[:, :rank]


def _fused(layer: str, low: LowRank) -> tuple[Tensor, Tensor]:
    """One pair for the whole layer: down [R, K], up [O, R], block by block if the matrices have pairs of their own."""
    if low.magnitude is not None and len(low.groups) < low.of:
        raise WeightsError(
            f"{layer} has magnitudes for some of its matrices only, which ComfyUI has no form for"
        )
    if len(low.groups) == low.of and all(torch.equal(low.down[0], down) for down in low.down):
        return low.down[0], low.up.flatten(0, 1)
    pairs = [_trimmed(down, up) for down, up in zip(low.down, low.up, strict=True)]
    ranks = [len(down) for down, _ in pairs]
    blocks = [low.up.new_zeros(low.up.shape[1], sum(ranks)) for _ in range(low.of)]
    for at, group in enumerate(low.groups):
        before = sum(ranks[:at])
        blocks[group] = F.pad(pairs[at][1], (before, sum(ranks) - before - ranks[at]))
    return torch.cat([down for down, _ in pairs]), torch.cat(blocks)
