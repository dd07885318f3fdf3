"""How programs name the tensors of a LoRA: prefix, layer, suffix, each from a table; layers by the rows of weights.

    transformer.transformer_blocks.0.attn1.to_q.lora_A.weight       diffusers, peft
    diffusion_model.blocks.0.attn.qkv.lora_down.weight              ComfyUI
    lora_unet_blocks_0_attn_qkv.lora_down.weight                    kohya, ComfyUI
    lora_transformer_transformer_blocks_0_attn1_to_q.alpha          OneTrainer
    lycoris_transformer_blocks_0_attn1_to_q.lora_down.weight        SimpleTuner (LyCORIS)

Any prefix goes with any suffix, and layers have diffusers' names or those of the official code.
Sources: diffusers 0.42.1, ComfyUI's `comfy/lora.py`, OneTrainer's `SanaLoRASaver`, LyCORIS' `locon.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Literal

from sanakit.transformer import TransformerConfig
from sanakit.weights.formats import diffusers_transformer, sana_pth
from sanakit.weights.rules import Drop, Join, Squeeze, Table

Role = Literal["down", "up", "alpha", "magnitude"]


@dataclass(frozen=True, kw_only=True)
class LoRAForm:
    """The names of one program. flat: dots in the layer's name are underscores."""

    name: str
    prefix: str
    flat: bool = False


FORMS: tuple[LoRAForm, ...] = (
    LoRAForm(name="diffusers", prefix="transformer."),
    LoRAForm(name="peft", prefix="base_model.model."),
    LoRAForm(name="ComfyUI", prefix="model.diffusion_model."),
    LoRAForm(name="ComfyUI", prefix="diffusion_model."),
    LoRAForm(name="kohya", prefix="lora_unet_", flat=True),
    LoRAForm(name="OneTrainer", prefix="lora_transformer_", flat=True),
    LoRAForm(name="LyCORIS", prefix="lycoris_", flat=True),
    LoRAForm(name="names without a prefix", prefix=""),
)
"""In the order in which they are tried."""

SUFFIXES: dict[str, Role] = {
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora_A.default.weight": "down",
    ".lora_B.default.weight": "up",
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    "_lora.down.weight": "down",
    "_lora.up.weight": "up",
    ".lora_linear_layer.down.weight": "down",
    ".lora_linear_layer.up.weight": "up",
    ".alpha": "alpha",
    ".lora_magnitude_vector": "magnitude",
    ".lora_magnitude_vector.weight": "magnitude",
    ".lora_magnitude_vector.default.weight": "magnitude",
    ".dora_scale": "magnitude",
}
"""End of a tensor's name -> what it is."""

UNREAD: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), what)
    for pattern, what in (
        (r"\.lora_mid\.weight$", "a Tucker decomposition"),
        (r"\.lora_B\.(default\.)?bias$", "a LoRA with biases"),
        (r"\.hada_", "a LoHa"),
        (r"\.lokr_", "a LoKr"),
        (r"\.oft_", "an OFT"),
        (r"\.diff(_b)?$", "full differences of weights"),
        (r"\.[ab][12]\.weight$", "a GLoRA"),
        (r"\.on_input$", "an IA3"),
    )
)
"""Pattern in a tensor's name, and what its file holds instead of a LoRA."""

TEXT_PREFIXES = (
    "text_encoder.",
    "text_encoder_2.",
    "text_model.",
    "lora_te",
    "lycoris_text",
    "te.",
    "bundle_emb.",
)
"""Tensors of a text encoder, and embeddings of its tokens."""

_BLOCK = re.compile(r"(?:^|[._])blocks[._](\d{1,3})[._]")


def suffix_of(key: str) -> str | None:
    """Return the longest end of a tensor's name that says what it is; None if it has none."""
    return max((end for end in SUFFIXES if key.endswith(end)), key=len, default=None)


def unread(key: str) -> str | None:
    """Return what a file with such a tensor holds instead of a LoRA; None if it may be one."""
    return next((what for pattern, what in UNREAD if pattern.search(key)), None)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a published layer lies in ours.

    layer: its name here. group: which of the `of` matrices in its weight; None for all of them in one. conv: theirs is
    a convolution. sprint: only a network with a guidance embedding has this name.
    """

    layer: str
    group: int | None
    of: int
    conv: bool
    sprint: bool = False


def depth_of(names: Iterable[str]) -> int:
    """Return how many blocks the names speak of."""
    return 1 + max((int(match[1]) for name in names if (match := _BLOCK.search(name))), default=0)


@cache
def places(depth: int) -> dict[str, Place]:
    """Return the published name of a layer -> its place, in both schemes, for base models and for Sprint."""
    base, sprint = (diffusers_transformer.table(_config(depth, guidance)) for guidance in (False, True))
    fused = {_layer(row.ours): len(row.theirs) for row in base.rows if isinstance(row, Join)}
    found = _of_table(base, fused)
    later = _of_table(sprint, fused) | _of_table(sana_pth.table(_config(depth, True)), fused)
    only_sprint = {name for name in _of_table(sprint, fused) if name not in found}
    return found | {
        name: Place(layer=p.layer, group=p.group, of=p.of, conv=p.conv, sprint=name in only_sprint)
        for name, p in later.items()
        if name not in found
    }


def published(
    scheme: Literal["diffusers", "official"], depth: int, sprint: bool
) -> dict[str, dict[int | None, str]]:
    """Our layer -> group (None: the whole layer) -> its published name, in one scheme."""
    module = diffusers_transformer if scheme == "diffusers" else sana_pth
    names: dict[str, dict[int | None, str]] = {}
    for name in _of_table(module.table(_config(depth, sprint)), {}):
        place = places(depth)[name]
        names.setdefault(place.layer, {})[place.group] = name
    return names


def plain_layer(name: str, form: LoRAForm) -> str:
    """Return the layer in a tensor's name without prefix and suffix, as in `places` (flat forms: with underscores)."""
    if form.flat:
        return name
    # Attention processors held the layers before diffusers 0.20, and the output had no number.
    name = name.replace(".processor.", ".")
    return f"{name}.0" if name.endswith(".to_out") else name


def _of_table(table: Table, fused: dict[str, int]) -> dict[str, Place]:
    found = {}
    for row in table.rows:
        if isinstance(row, Drop) or not row.ours.endswith(".weight") or "norm" in row.ours:
            continue
        layer = _layer(row.ours)
        conv = isinstance(row, Squeeze) or layer == "patch" or layer.endswith(".depthwise")
        for number, key in enumerate(row.their_keys):
            group = number if isinstance(row, Join) else None
            found[_layer(key)] = Place(layer=layer, group=group, of=fused.get(layer, 1), conv=conv)
    return found


def _layer(key: str) -> str:
    return key.removesuffix(".weight")


def _config(depth: int, guidance: bool) -> TransformerConfig:
    """Return a configuration whose table has all layers; names don't depend on widths."""
    return TransformerConfig(width=4, depth=depth, heads=1, cross_heads=1, guidance_embed=guidance)
