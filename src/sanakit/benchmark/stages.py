"""The stages of a picture as work to time: text, one guided step, decode, by any engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sanakit.base.precision import CPU, Precision
from sanakit.base.values import TextStates
from sanakit.benchmark.engines import EngineSpec
from sanakit.benchmark.models import random_decoder, random_text_encoder, random_transformer
from sanakit.benchmark.peers import peer_decoder, peer_transformer
from sanakit.pipeline.engine import apply_engine, choose_engine
from sanakit.pipeline.memory import Shapes
from sanakit.pipeline.stages import decode_latent
from sanakit.transformer import SanaTransformer, TextMemory

WORDS = 40
"""Real tokens of the prompt: two or three sentences."""
PADDED = 300
INSTRUCTION = 240
"""Tokens of the instruction before the prompt, about."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is timed: shapes, size in pixels, the dtype of the run and the device.

    shared: text encoders that engines have in common, by dtype; cleared after a stage, for they are large.
    """

    shapes: Shapes
    width: int
    height: int
    dtype: torch.dtype
    device: torch.device = CPU
    shared: dict[torch.dtype, nn.Module] = field(default_factory=dict)

    @property
    def latent(self) -> tuple[int, int, int]:
        """[C, h, w]."""
        ratio = self.shapes.autoencoder.ratio
        return self.shapes.transformer.latent_channels, self.height // ratio, self.width // ratio

    def noise(self, batch: int, dtype: torch.dtype) -> Tensor:
        """[B, C, h, w]."""
        generator = torch.Generator().manual_seed(1)
        one = torch.randn(1, *self.latent, generator=generator)
        return one.expand(batch, -1, -1, -1).to(self.device, dtype)

    def words(self, dtype: torch.dtype, length: int) -> TextStates:
        """A null prompt of one token and a prompt of `WORDS`, padded to `length` of at most `PADDED`."""
        generator = torch.Generator().manual_seed(2)
        states = torch.randn(2, PADDED, self.shapes.transformer.text_width, generator=generator).to(dtype)
        mask = torch.arange(length) < torch.tensor([[1], [WORDS]])
        return TextStates(states[:, :length], mask).to(device=self.device)


def step(subject: Subject, spec: EngineSpec) -> tuple[Callable[[], Tensor], int]:
    """One step with guidance, two branches in one batch; and the bytes of its weights."""
    dtype = spec.dtype or subject.dtype
    model = random_transformer(subject.shapes.transformer, dtype).to(subject.device)
    noise, time = subject.noise(2, dtype), torch.tensor([500.0], device=subject.device)
    guidance = torch.tensor([4.5], device=subject.device) if model.config.guidance_embed else None
    if spec.fast is not None:
        size = _bytes(model)
        _bring(spec.fast, "transformer", model, Precision(subject.device, dtype, "as asked"))
        memory = _memory(model, subject.words(dtype, WORDS))
        return lambda: model(noise, time, memory, guidance), size
    text = subject.words(dtype, PADDED)
    peer = _maybe_compiled(peer_transformer(model), spec)
    extra = {} if guidance is None else {"guidance": guidance.expand(2) * model.config.guidance_scale}
    moment = time.expand(2) if model.config.time_scale == 1 else time.expand(2) / 1000
    return lambda: peer(
        noise, encoder_hidden_states=text.states, encoder_attention_mask=text.mask.long(),
        timestep=moment, return_dict=False, **extra,
    )[0], _bytes(model)  # fmt: skip


def decode(subject: Subject, spec: EngineSpec) -> tuple[Callable[[], Tensor], int]:
    """One latent to pixels, large ones in tiles where ours decides so; and the bytes of the decoder's weights."""
    dtype = spec.dtype or subject.dtype
    model = random_decoder(subject.shapes.autoencoder, dtype).to(subject.device)
    latent, size = subject.noise(1, dtype), _bytes(model)
    if spec.fast is not None:
        _bring(spec.fast, "decoder", model, Precision(subject.device, dtype, "as asked"))
        return lambda: decode_latent(model, latent), size
    peer = _maybe_compiled(peer_decoder(model), spec)
    return lambda: peer(latent), size


def text(subject: Subject, spec: EngineSpec) -> tuple[Callable[[], Tensor], int]:
    """Prompt and null prompt to states: ours over real tokens only, diffusers over padding as well."""
    dtype = spec.dtype or subject.dtype
    if dtype not in subject.shared:
        subject.shared[dtype] = random_text_encoder(subject.shapes.text, dtype).to(subject.device)
    model = subject.shared[dtype]
    lengths = (INSTRUCTION + WORDS, 1)
    padded = (INSTRUCTION + PADDED - 2, PADDED) if spec.fast is None else lengths
    batches = [_tokens(real, length, subject.device) for real, length in zip(lengths, padded, strict=True)]
    run = _maybe_compiled(model, spec)

    def work() -> Tensor:
        states = [
            run(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            for ids, mask in batches
        ]
        return torch.cat([s[:, :n] for s, n in zip(states, lengths, strict=True)], dim=1)

    return work, _bytes(model)


Stage = Callable[[Subject, EngineSpec], tuple[Callable[[], Tensor], int]]
STAGES: dict[str, Stage] = {"text": text, "step": step, "decode": decode}


def _tokens(real: int, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids and mask [1, length] with `real` tokens."""
    places = torch.arange(length, device=device)[None]
    return places % 200 + 2, (places < real).long()


def _memory(model: SanaTransformer, words: TextStates) -> TextMemory:
    """What the pipeline keeps of a text while it draws."""
    with torch.no_grad():
        memory = model.read(words, words.lone())
    return TextMemory(memory.blocks, None)


def _bring(fast: str, part: str, model: nn.Module, precision: Precision) -> None:
    apply_engine(choose_engine(fast, precision), part, model)


def _maybe_compiled(model: nn.Module, spec: EngineSpec) -> Callable[..., Any]:
    return torch.compile(model) if spec.compiled else model


def _bytes(model: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
