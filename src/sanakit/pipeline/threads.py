"""The CPU threads of each stage, by the size of its work, and the clock that times stages on them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext

import torch

from sanakit.autoencoder import AutoencoderConfig
from sanakit.base.threads import Threads, choose_threads, use_threads
from sanakit.pipeline.events import Stage, StageDone
from sanakit.pipeline.shapes import Shapes
from sanakit.text import MAX_TOKENS, TextConfig
from sanakit.transformer import TransformerConfig

_BRANCHES = 2  # with guidance or without: an image's bits must not depend on what else a batch holds
_TAPS = 9  # of a 3x3 convolution


def stage_threads(
    shapes: Shapes, width: int, height: int, device: torch.device, asked: int | None = None
) -> dict[Stage, Threads]:
    """Return the threads of each stage for an image of width x height pixels.

    They depend on the model, the size, the machine and explicit settings, not on the load: the same request always gets
    the same, and with it the same bits. Beside a GPU, torch's own number stays.
    """
    if device.type != "cpu":
        own = Threads(asked or torch.get_num_threads(), "the work is done by the GPU")
        return {"text": own, "encode": own, "denoise": own, "decode": own}
    ratio = shapes.autoencoder.ratio
    tokens = width * height // (ratio * shapes.transformer.patch_size) ** 2
    return {
        "text": choose_threads(text_product(shapes.text), asked),
        "encode": choose_threads(encoder_product(shapes.autoencoder, width * height), asked),
        "denoise": choose_threads(transformer_product(shapes.transformer, _BRANCHES * tokens), asked),
        "decode": choose_threads(decoder_product(shapes.autoencoder, width * height), asked),
    }


def text_product(config: TextConfig) -> float:
    """Return the operations of one square product over a prompt of full length."""
    return _product(MAX_TOKENS, int(config["hidden_size"]))


def transformer_product(config: TransformerConfig, tokens: int) -> float:
    """Return the operations of one square product over `tokens` of all branches and images."""
    return _product(tokens, config.width)


def decoder_product(config: AutoencoderConfig, pixels: int) -> float:
    """Return the operations of the largest convolution of a decoder that makes `pixels`."""
    return _widest([(stage.width, stage.depth) for stage in config.decoder], pixels)


def encoder_product(config: AutoencoderConfig, pixels: int) -> float:
    """Return the operations of the largest convolution of an encoder that reads `pixels` of all images."""
    return _widest([(stage.width, stage.depth) for stage in config.encoder], pixels)


def _widest(stages: list[tuple[int, int]], pixels: int) -> float:
    found = (
        _TAPS * _product(pixels // 4**index, width) for index, (width, depth) in enumerate(stages) if depth
    )
    return max(found, default=0.0)


def _product(rows: int, width: int) -> float:
    return 2.0 * rows * width * width


class StageTimer:
    """Runs the stages of a request on their threads and counts their seconds: of the present run, and in all."""

    def __init__(self, threads: Mapping[Stage, Threads]) -> None:
        self.threads = threads
        self.seconds: dict[str, float] = {}
        self._present: dict[str, float] = {}

    @contextmanager
    def timed(self, stage: Stage) -> Iterator[None]:
        """Run a block on the threads of `stage` and count its seconds; what a caller does between blocks counts not."""
        chosen = self.threads.get(stage)
        with nullcontext() if chosen is None else use_threads(chosen.count):
            start = time.perf_counter()
            try:
                yield
            finally:
                seconds = time.perf_counter() - start
                self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
                self._present[stage] = self._present.get(stage, 0.0) + seconds

    def done(self, stage: Stage, index: int = 0) -> StageDone:
        """Return the event that ends the present run of a stage."""
        return StageDone(stage=stage, seconds=self._present.pop(stage, 0.0), index=index)
