"""How many bytes each stage needs, told before it runs, and how many there are.

Weights are counted exactly. Working memory is the largest set of tensors alive at once, counted from the shapes of
the widest layer; it is an estimate for planning and no promise.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from sanakit.autoencoder import DCAE, AutoencoderConfig, Stage
from sanakit.pipeline.stages import TILE_ABOVE
from sanakit.text import MAX_TOKENS, TextConfig
from sanakit.transformer import SanaTransformer, TransformerConfig

TILE = 1024
_INSTRUCTION_TOKENS = 256
_MARGIN = 0.8

Config = TypeVar("Config")


@dataclass(frozen=True, kw_only=True)
class StageMemory:
    """Bytes of one stage: its weights, and the tensors alive while it works."""

    stage: str
    parameters: int
    weights: int
    work: int

    @property
    def total(self) -> int:
        """Weights and working memory."""
        return self.weights + self.work


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """The three configurations that memory depends on."""

    transformer: TransformerConfig
    autoencoder: AutoencoderConfig
    text: TextConfig


def estimate(
    shapes: Shapes, width: int, height: int, dtype: torch.dtype, branches: int = 2
) -> tuple[StageMemory, ...]:
    """Memory of the stages text, denoise and decode for one picture of width x height pixels.

    branches: passes through the transformer in one batch, 2 with classifier-free guidance. With fp16 the text encoder
    and the decoder are float32 (see `assemble.Parts`).
    """
    size = dtype.itemsize
    outer = 4 if dtype == torch.float16 else size
    parameters = (
        _gemma_parameters(shapes.text),
        _count(SanaTransformer, shapes.transformer),
        _count(_decoder, shapes.autoencoder),
    )
    tokens = width * height // (shapes.autoencoder.ratio * shapes.transformer.patch_size) ** 2
    work = (
        _text_work(shapes.text, outer),
        _denoise_work(shapes.transformer, tokens * branches, size),
        _decode_work(shapes.autoencoder, width, height, outer),
    )
    rows = zip(("text", "denoise", "decode"), parameters, (outer, size, outer), work, strict=True)
    return tuple(
        StageMemory(stage=stage, parameters=count, weights=count * each, work=need)
        for stage, count, each, need in rows
    )


def fits_together(stages: tuple[StageMemory, ...], available: int | None) -> bool:
    """Whether all weights and the largest working set fit at once, with a margin; True where nothing is known."""
    need = sum(stage.weights for stage in stages) + max(stage.work for stage in stages)
    return available is None or need <= _MARGIN * available


def available_bytes(device: torch.device) -> int | None:
    """Bytes that can still be allocated on a device; None where the system does not tell."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    figures = [figure for figure in (_machine_bytes(), _group_bytes()) if figure is not None]
    return min(figures, default=None)


def _machine_bytes() -> int | None:
    """What the machine can give without swapping."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None


def _group_bytes(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What a container's limit leaves; None without a limit."""
    try:
        limit = (root / "memory.max").read_text(encoding="ascii").strip()
        used = (root / "memory.current").read_text(encoding="ascii").strip()
        return max(0, int(limit) - int(used)) if limit != "max" else None
    except (OSError, ValueError):
        return None


def _count(build: Callable[[Config], nn.Module], config: Config) -> int:
    with torch.device("meta"):
        module = build(config)
    return sum(prod(parameter.shape) for parameter in module.parameters())


def _decoder(config: AutoencoderConfig) -> nn.Module:
    return DCAE(config).decoder


def _gemma_parameters(config: TextConfig) -> int:
    """The parameters of a Gemma-2 decoder by its configuration; building one would import transformers."""
    width, heads, kv_heads = (
        config["hidden_size"],
        config["num_attention_heads"],
        config["num_key_value_heads"],
    )
    attention = 2 * width * config["head_dim"] * (heads + kv_heads)
    layer = attention + 3 * width * config["intermediate_size"] + 4 * width
    return int(config["vocab_size"] * width + config["num_hidden_layers"] * layer + width)


def _text_work(config: TextConfig, size: int) -> int:
    """Eager attention keeps scores and probabilities (float32), the FFN three tensors."""
    tokens = MAX_TOKENS + _INSTRUCTION_TOKENS
    scores = 2 * 4 * int(config["num_attention_heads"]) * tokens**2
    return scores + tokens * size * (3 * int(config["intermediate_size"]) + 4 * int(config["hidden_size"]))


def _denoise_work(config: TransformerConfig, tokens: int, size: int) -> int:
    """The Mix-FFN keeps three tensors of its doubled hidden width beside the residual stream and the attention."""
    hidden = int(config.width * config.ffn_ratio)
    return tokens * (size * (3 * 2 * hidden + 4 * config.width) + 4 * 2 * config.width)


def _decode_work(config: AutoencoderConfig, width: int, height: int, size: int) -> int:
    """The largest stage of the decoder, or of one tile where the picture is decoded in tiles."""
    pixels = width * height
    if pixels <= TILE_ABOVE:
        return _decoder_peak(config, pixels, size)
    return _decoder_peak(config, min(width, TILE) * min(height, TILE), size) + pixels * 4 * 4


def _decoder_peak(config: AutoencoderConfig, pixels: int, size: int) -> int:
    stages = config.decoder
    coarser = [stage.width for stage in stages[1:]] + [config.latent_channels]
    channels = (
        _stage_channels(stage, below) / 4**index
        for index, (stage, below) in enumerate(zip(stages, coarser, strict=True))
    )
    return int(pixels * size * max(channels))


def _stage_channels(stage: Stage, below: int) -> float:
    """Channels alive at once in a stage, at its resolution: in a block, or while upsampling from the one below."""
    inside = 4 * stage.width if stage.kind == "res" else (3 * 8 + 2) * stage.width
    return max(inside if stage.depth else 0, below + 2 * stage.width)
