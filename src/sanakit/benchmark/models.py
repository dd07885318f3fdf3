"""Models to time: any configuration at its full size, with random weights that keep numbers in range.

The numbers drawn mean nothing; shapes, and with them times, are those of the published checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from sanakit.autoencoder import DCAE, AutoencoderConfig, LatentDecoder
from sanakit.benchmark.subject import Subject
from sanakit.text import TextConfig, build_gemma, restore_constants
from sanakit.transformer import SanaTransformer, TransformerConfig

Built = TypeVar("Built", bound=nn.Module)


def random_transformer(config: TransformerConfig, dtype: torch.dtype) -> SanaTransformer:
    """A transformer with random weights."""
    return _filled(lambda: SanaTransformer(config), dtype)


def random_autoencoder(config: AutoencoderConfig, dtype: torch.dtype) -> DCAE:
    """An autoencoder with random weights."""
    return _filled(lambda: DCAE(config), dtype)


def random_decoder(config: AutoencoderConfig, dtype: torch.dtype) -> LatentDecoder:
    """The same without its encoder."""
    return _filled(lambda: LatentDecoder(config), dtype)


def random_text_encoder(config: TextConfig, dtype: torch.dtype) -> nn.Module:
    """A Gemma-2 with random weights."""
    model = _filled(lambda: build_gemma(config, "meta"), dtype)
    restore_constants(model)
    return model


def shared_encoder(subject: Subject, dtype: torch.dtype) -> nn.Module:
    """The text encoder that engines of one dtype have in common."""
    if dtype not in subject.shared:
        subject.shared[dtype] = random_text_encoder(subject.shapes.text, dtype).to(subject.device)
    return subject.shared[dtype]


def _filled(build: Callable[[], Built], dtype: torch.dtype, seed: int = 0) -> Built:
    """A model on the CPU: matrices with a variance of 1 / inputs, norms of 1, everything else 0."""
    with torch.device("meta"):
        model = build()
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(1 << 20, generator=generator).to(
        dtype
    )  # repeated: drawing billions would take minutes
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
