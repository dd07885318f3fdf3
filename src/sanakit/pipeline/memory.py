"""How many bytes each stage needs, estimated before it runs, and how many there are.

Weights are counted exactly. Working memory is the largest set of tensors alive at once, from the shapes of the widest
layer with factors fitted to measured peaks on a CPU (Sana-0.6B at 1024 px, DC-AE at 512 px: within 20 %); it is an
estimate for planning, not a promise.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from sanakit.autoencoder import BAND, AutoencoderConfig, Stage
from sanakit.base.errors import RequestError
from sanakit.base.heap import free_bytes
from sanakit.base.memory import group_left, group_limit, process_left
from sanakit.base.precision import Precision
from sanakit.pipeline.shapes import Shapes, control_parameters
from sanakit.text import MAX_TOKENS, TextConfig
from sanakit.transformer import ControlConfig, TransformerConfig

TILE_ABOVE = 2048 * 2048
"""Images of more pixels than this are decoded in tiles."""

TILE = 1024
STAGES = ("text", "denoise", "decode")
_INSTRUCTION_TOKENS = 256
_BANDS = 7  # maps of a band alive at once, with what a heap that keeps its pages wastes between them
_MARGIN = 0.8


@dataclass(frozen=True, kw_only=True)
class StageMemory:
    """Bytes of one stage: its weights, and the tensors alive while it works."""

    stage: str
    parameters: int
    weights: int
    work: int

    @property
    def total(self) -> int:
        """Weights and working memory, in bytes."""
        return self.weights + self.work


def estimate(
    shapes: Shapes,
    width: int,
    height: int,
    dtype: torch.dtype,
    branches: int = 2,
    device: str = "cpu",
    total: int | None = None,
    encode: bool = False,
    controls: Sequence[ControlConfig] = (),
) -> tuple[StageMemory, ...]:
    """Return the memory of the stages text, denoise and decode for one image of width x height pixels.

    encode: add the stage encode, for an image that is changed or steered. controls: ControlNets beside the transformer,
    whose weights and residuals count in the stage denoise.

    branches: passes through the transformer in one batch, 2 with classifier-free guidance. device: its type; on a CPU
    wide maps are decoded in bands. total: bytes that the device has in all, which decide on tiles. With fp16 the text
    encoder and the decoder are float32 (see `components.Components`).
    """
    size = dtype.itemsize
    outer, outer_dtype = (4, torch.float32) if dtype == torch.float16 else (size, dtype)
    config = shapes.autoencoder
    tokens = width * height // (config.ratio * shapes.transformer.patch_size) ** 2
    tiled = needs_tiles(config, width, height, outer_dtype, total, device)
    residuals = sum(each.copies for each in controls) * tokens * branches * shapes.transformer.width * size
    work = (
        _text_work(shapes.text, outer),
        _denoise_work(shapes.transformer, tokens * branches, size) + residuals,
        _decode_work(config, width, height, outer, device == "cpu", tiled),
    )
    text, transformer, decoder = shapes.parameters()
    counts = (text, transformer + sum(map(control_parameters, controls)), decoder)
    rows = zip(STAGES, counts, (outer, size, outer), work, strict=True)
    stages = tuple(
        StageMemory(stage=stage, parameters=count, weights=count * each, work=need)
        for stage, count, each, need in rows
    )
    if not encode:
        return stages
    count, work_bytes = (
        shapes.encoder_parameters(),
        _encode_work(config, width, height, outer, outer_dtype, total),
    )
    return (*stages, StageMemory(stage="encode", parameters=count, weights=count * outer, work=work_bytes))


@dataclass(frozen=True)
class Fit:
    """Whether all parts of a model fit into memory at once, and a warning if even one by one they may not."""

    at_once: bool
    warning: str | None


def check_fit(
    shapes: Shapes,
    width: int,
    height: int,
    precision: Precision,
    branches: int,
    loaded: Collection[str],
    encode: bool = False,
    controls: Sequence[ControlConfig] = (),
    beside: int = 0,
) -> Fit:
    """Compare what the stages of an image need with what is free; the weights of `loaded` stages count as free.

    beside: bytes of adapters that lie beside the weights of the transformer.
    Raises RequestError if a stage can't fit.
    """
    device = precision.device
    need = estimate(
        shapes, width, height, precision.dtype, branches, device.type, total_bytes(device), encode, controls
    )
    need = tuple(
        replace(stage, weights=stage.weights + beside) if stage.stage == "denoise" else stage
        for stage in need
    )
    free = available_bytes(device)
    room = None if free is None else free + sum(stage.weights for stage in need if stage.stage in loaded)
    short, warning = shortage(need, room), None
    if short is not None and room is not None:
        warning = (
            f"{short.stage} needs about {short.total / 1e9:.1f} GB of memory, {room / 1e9:.1f} GB are free"
        )
        # On a GPU the decoder goes on in tiles, so only weights are certain.
        if short.weights > room or (device.type == "cpu" and cannot_fit(short, room)):
            raise RequestError(f"{warning}: free some, or choose a smaller size, model or dtype")
        warning = f"{warning}: it may fail; a smaller size needs less."
    return Fit(fits_together(need, room), warning)


def cannot_fit(need: StageMemory, room: int) -> bool:
    """Return whether a stage needs more than `room` bytes even if the estimate is as wrong as it was ever measured."""
    return need.weights > room or _MARGIN * need.total > room


def fits_together(stages: tuple[StageMemory, ...], available: int | None) -> bool:
    """Return whether all weights and the largest working set fit at once, with a margin; True if nothing is known."""
    need = sum(stage.weights for stage in stages) + max(stage.work for stage in stages)
    return available is None or need <= _MARGIN * available


def shortage(stages: tuple[StageMemory, ...], available: int | None) -> StageMemory | None:
    """Return the stage that needs most if even alone it needs more than there is; None if all fit one by one."""
    largest = max(stages, key=lambda stage: stage.total)
    return largest if available is not None and largest.total > available else None


def needs_tiles(
    config: AutoencoderConfig,
    width: int,
    height: int,
    dtype: torch.dtype,
    total: int | None,
    device: str = "cpu",
) -> bool:
    """Return whether to decode in tiles: large images, and those whose decoding would take half of `total` bytes.

    Depends on what the machine has and not on what is free, so that a machine always draws the same bits.
    """
    whole = _decoder_peak(config, width * height, dtype.itemsize, device == "cpu")
    return width * height > TILE_ABOVE or (total is not None and whole > total // 2)


def encodes_in_tiles(
    config: AutoencoderConfig, width: int, height: int, dtype: torch.dtype, total: int | None
) -> bool:
    """Return whether to encode in tiles, by the rule of `needs_tiles`."""
    whole = _encoder_peak(config, width * height, dtype.itemsize)
    return width * height > TILE_ABOVE or (total is not None and whole > total // 2)


def available_bytes(device: torch.device) -> int | None:
    """Return the bytes that can still be allocated on a device, by all limits of this process; None if unknown."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    left = _least(_meminfo("MemAvailable") or _physical(), group_left(), process_left())
    return None if left is None else left + free_bytes()


def total_bytes(device: torch.device) -> int | None:
    """Return the bytes that a device has in all; None if unknown."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return _least(_meminfo("MemTotal") or _physical(), group_limit())


def _least(*figures: int | None) -> int | None:
    return min((figure for figure in figures if figure is not None), default=None)


def _meminfo(name: str) -> int | None:
    """Return a line of Linux' memory table, in bytes."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
    except (OSError, ValueError, StopIteration):
        return None


def _physical() -> int | None:
    """Return all memory of the machine, on systems without that table."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None


def _text_work(config: TextConfig, size: int) -> int:
    """Eager attention keeps scores and probabilities (float32), the FFN three tensors."""
    tokens = MAX_TOKENS + _INSTRUCTION_TOKENS
    scores = 2 * 4 * int(config["num_attention_heads"]) * tokens**2
    return scores + tokens * size * (3 * int(config["intermediate_size"]) + 4 * int(config["hidden_size"]))


def _denoise_work(config: TransformerConfig, tokens: int, size: int) -> int:
    """Count the Mix-FFN at its peak: six tensors of its doubled hidden width (with layout copies), six of the width."""
    hidden = int(config.width * config.ffn_ratio)
    return tokens * (size * (6 * 2 * hidden + 6 * config.width) + 4 * 2 * config.width)


def _decode_work(
    config: AutoencoderConfig, width: int, height: int, size: int, banded: bool, tiled: bool
) -> int:
    """Return the largest stage of the decoder, or of one tile if the image is decoded in tiles."""
    pixels = width * height
    if not tiled:
        return _decoder_peak(config, pixels, size, banded)
    return _decoder_peak(config, min(width, TILE) * min(height, TILE), size, banded) + pixels * 4 * 4


def _encode_work(
    config: AutoencoderConfig, width: int, height: int, size: int, dtype: torch.dtype, total: int | None
) -> int:
    """Return the largest stage of the encoder, or of one tile."""
    if encodes_in_tiles(config, width, height, dtype, total):
        return _encoder_peak(config, min(width, TILE) * min(height, TILE), size)
    return _encoder_peak(config, width * height, size)


def _encoder_peak(config: AutoencoderConfig, pixels: int, size: int) -> int:
    """Return the widest stage; it is never computed in bands."""
    stages = enumerate(config.encoder)
    return max(_stage_peak(stage, pixels // 4**index, size, banded=False) for index, stage in stages)


def _decoder_peak(config: AutoencoderConfig, pixels: int, size: int, banded: bool) -> int:
    """Return the widest stage; with bands the widest of either kind, for the heap keeps the pages of the one before."""
    peaks: dict[str, int] = {"res": 0, "evit": 0}
    for index, stage in enumerate(config.decoder):
        need = _stage_peak(stage, pixels // 4**index, size, banded)
        peaks[stage.kind] = max(peaks[stage.kind], need)
    return sum(peaks.values()) if banded else max(peaks.values())


def _stage_peak(stage: Stage, positions: int, size: int, banded: bool) -> int:
    """Return a channel costs three tensors in the dtype and four in float32, for the norms; in bands, a band's maps.

    An EfficientViT block widens its own channels eightfold in its FFN, of which half count.
    """
    if stage.depth == 0:
        return 0
    channels = stage.width if stage.kind == "res" else 4 * stage.width
    whole = positions * channels * (3 * size + 4 * 4)
    return min(whole, _BANDS * BAND) if banded and stage.kind == "res" else whole
