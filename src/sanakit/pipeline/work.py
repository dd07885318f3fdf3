"""How large the work of a stage is on a CPU, by model and size, and how many threads it gets."""

from __future__ import annotations

import torch

from sanakit.autoencoder import AutoencoderConfig
from sanakit.base.threads import Threads, choose_threads
from sanakit.pipeline.events import Stage
from sanakit.pipeline.memory import Shapes
from sanakit.text import MAX_TOKENS, TextConfig
from sanakit.transformer import TransformerConfig

_BRANCHES = 2  # with guidance or without: a picture's bits must not depend on what else a batch holds
_TAPS = 9  # of a 3x3 convolution


def stage_threads(
    shapes: Shapes, width: int, height: int, device: torch.device, asked: int | None = None
) -> dict[Stage, Threads]:
    """Threads of each stage for a picture of width x height pixels.

    They depend on the model, the size, the machine and explicit settings, and on nothing of the moment: the same
    request always gets the same, and with it the same bits. Beside a GPU, torch's own number stays.
    """
    if device.type != "cpu":
        own = Threads(asked or torch.get_num_threads(), "the work is done by the GPU")
        return {"text": own, "denoise": own, "decode": own}
    ratio = shapes.autoencoder.ratio
    tokens = width * height // (ratio * shapes.transformer.patch_size) ** 2
    return {
        "text": choose_threads(text_product(shapes.text), asked),
        "denoise": choose_threads(transformer_product(shapes.transformer, _BRANCHES * tokens), asked),
        "decode": choose_threads(decoder_product(shapes.autoencoder, width * height), asked),
    }


def text_product(config: TextConfig) -> float:
    """Operations of one square product over a prompt of full length."""
    return _product(MAX_TOKENS, int(config["hidden_size"]))


def transformer_product(config: TransformerConfig, tokens: int) -> float:
    """Operations of one square product over so many tokens of all branches and pictures."""
    return _product(tokens, config.width)


def decoder_product(config: AutoencoderConfig, pixels: int) -> float:
    """Operations of the largest convolution of a decoder that makes so many pixels."""
    return _widest([(stage.width, stage.depth) for stage in config.decoder], pixels)


def encoder_product(config: AutoencoderConfig, pixels: int) -> float:
    """Operations of the largest convolution of an encoder that reads so many pixels of all pictures."""
    return _widest([(stage.width, stage.depth) for stage in config.encoder], pixels)


def _widest(stages: list[tuple[int, int]], pixels: int) -> float:
    found = (
        _TAPS * _product(pixels // 4**index, width) for index, (width, depth) in enumerate(stages) if depth
    )
    return max(found, default=0.0)


def _product(rows: int, width: int) -> float:
    return 2.0 * rows * width * width
