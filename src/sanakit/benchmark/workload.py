"""What is timed: the shapes of a model at a size, its inputs, random weights for it, and the operations it costs.

Models have their full size and random weights that keep numbers in range: what they compute means nothing, but shapes,
and with them times, are those of the published checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sanakit.autoencoder import DCAE, AutoencoderConfig, LatentDecoder
from sanakit.base.precision import CPU
from sanakit.base.text_states import TextStates
from sanakit.pipeline.shapes import Shapes
from sanakit.text import TextConfig, build_gemma, restore_constants
from sanakit.transformer import SanaTransformer, TransformerConfig

Built = TypeVar("Built", bound=nn.Module)

WORDS = 40
"""Real tokens of the prompt: two or three sentences."""
PADDED = 300
_STEPS, _SPRINT_STEPS = 20, 2
INSTRUCTION = 240
"""Tokens of the instruction before the prompt, about."""

Encoders = dict[torch.dtype, nn.Module]
"""Text encoders that the engines of a stage have in common, by dtype: they are too large to hold one each."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Shapes of a model, size of the image in pixels, dtype of the run, and device."""

    shapes: Shapes
    width: int
    height: int
    dtype: torch.dtype
    device: torch.device = CPU

    @property
    def latent(self) -> tuple[int, int, int]:
        """The shape [C, h, w] of a latent."""
        ratio = self.shapes.autoencoder.ratio
        return self.shapes.transformer.latent_channels, self.height // ratio, self.width // ratio

    @property
    def branches(self) -> int:
        """Passes of a step in one batch: two with guidance, one if the scale of guidance is an input (Sprint)."""
        return 1 if self.shapes.transformer.guidance_embed else 2

    @property
    def steps(self) -> int:
        """Steps of a whole picture, as models are made for."""
        return _SPRINT_STEPS if self.shapes.transformer.guidance_embed else _STEPS

    def noise(self, batch: int, dtype: torch.dtype) -> Tensor:
        """Return the same latent for every sample, [B, C, h, w]."""
        generator = torch.Generator().manual_seed(1)
        one = torch.randn(1, *self.latent, generator=generator)
        return one.expand(batch, -1, -1, -1).to(self.device, dtype)

    def words(self, dtype: torch.dtype, length: int) -> TextStates:
        """Return the texts of the branches, padded to `length` of at most `PADDED`: `WORDS`, before it an empty one."""
        generator = torch.Generator().manual_seed(2)
        states = torch.randn(2, PADDED, self.shapes.transformer.text_width, generator=generator).to(dtype)
        mask = torch.arange(length) < torch.tensor([[1], [WORDS]])
        rows = slice(2 - self.branches, 2)
        return TextStates(states[rows, :length], mask[rows]).to(device=self.device)


@dataclass(frozen=True, kw_only=True)
class Work:
    """A call to time. size: bytes of the weights. dtype: what it computes in, by name; None for the run's."""

    run: Callable[[], Tensor]
    size: int
    dtype: str | None = None


def tokens(real: int, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return ids and mask [1, length] with `real` tokens."""
    positions = torch.arange(length, device=device)[None]
    return positions % 200 + 2, (positions < real).long()


def real_tokens(workload: Workload) -> tuple[int, ...]:
    """Return the tokens that the text encoder reads, of each branch: those of the prompt, and one of an empty one."""
    return (INSTRUCTION + WORDS, 1)[: workload.branches]


def weight_bytes(model: nn.Module) -> int:
    """Return the bytes of a model's weights."""
    return sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())


def operations(stage: str, workload: Workload) -> float:
    """Return the operations of text, step or decode, counted on our plain graph; a multiplication and a sum are two.

    What is known beforehand is left out: padding, keys and values of the text, and attention to a text of one token.
    """
    counted = replace(workload, device=torch.device("meta"))
    with counted.device, torch.no_grad():
        return {"text": _text_operations, "step": _step_operations, "decode": _decode_operations}[stage](
            counted
        )


def _text_operations(workload: Workload) -> float:
    """Two per weight and token; the embedding costs nothing."""
    model = build_gemma(workload.shapes.text, "meta")
    weights = sum(p.numel() for name, p in model.named_parameters() if "embed_tokens" not in name)
    return 2.0 * weights * sum(real_tokens(workload))


def _step_operations(workload: Workload) -> float:
    model = SanaTransformer(workload.shapes.transformer).eval()
    words = workload.words(torch.float32, WORDS)
    single = torch.tensor(
        [True, False][-workload.branches :], device="cpu"
    )  # an empty prompt, and the prompt
    text_kv = replace(model.precompute_text(words, single), mask=None)
    latent = torch.empty(workload.branches, *workload.latent)
    guidance = torch.empty(1) if model.config.guidance_embed else None
    with FlopCounterMode(display=False) as counter:
        model(latent, torch.empty(1), text_kv, guidance)
    return float(counter.get_total_flops())


def _decode_operations(workload: Workload) -> float:
    model = DCAE(workload.shapes.autoencoder).eval()
    with FlopCounterMode(display=False) as counter:
        model.decode(torch.empty(1, *workload.latent))
    return float(counter.get_total_flops())


def random_transformer(config: TransformerConfig, dtype: torch.dtype) -> SanaTransformer:
    """Return a transformer with random weights."""
    return _filled(lambda: SanaTransformer(config), dtype)


def random_autoencoder(config: AutoencoderConfig, dtype: torch.dtype) -> DCAE:
    """Return an autoencoder with random weights."""
    return _filled(lambda: DCAE(config), dtype)


def random_decoder(config: AutoencoderConfig, dtype: torch.dtype) -> LatentDecoder:
    """Return the decoding half of an autoencoder with random weights."""
    return _filled(lambda: LatentDecoder(config), dtype)


def random_text_encoder(config: TextConfig, dtype: torch.dtype) -> nn.Module:
    """Return a Gemma-2 with random weights."""
    model = _filled(lambda: build_gemma(config, "meta"), dtype)
    restore_constants(model)
    return model


def shared_encoder(workload: Workload, dtype: torch.dtype, encoders: Encoders) -> nn.Module:
    """Return the encoder of a dtype from `encoders`; build it and put it there if it is missing."""
    if dtype not in encoders:
        encoders[dtype] = random_text_encoder(workload.shapes.text, dtype).to(workload.device)
    return encoders[dtype]


def _filled(build: Callable[[], Built], dtype: torch.dtype, seed: int = 0) -> Built:
    """Return a model on the CPU: matrices with a variance of 1 / inputs, norms of 1, everything else 0."""
    with torch.device("meta"):
        model = build()
    generator = torch.Generator().manual_seed(seed)
    # Repeated below: drawing billions would take minutes.
    noise = torch.randn(1 << 20, generator=generator).to(dtype)
    state = {
        name: _value(name, tensor, noise) if tensor.is_floating_point() else torch.zeros(tensor.shape)
        for name, tensor in model.state_dict().items()
    }
    model.load_state_dict(state, assign=True)
    return model.eval().requires_grad_(False)


def _value(name: str, like: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    if like.ndim < 2:
        return torch.full(like.shape, 0.0 if name.endswith("bias") else 1.0, dtype=noise.dtype)
    repeats = -(-like.numel() // len(noise))
    scale = float(like[0].numel() ** -0.5)
    return (noise * scale).repeat(repeats)[: like.numel()].reshape(like.shape)
