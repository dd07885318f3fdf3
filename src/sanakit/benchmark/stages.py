"""The stages of a picture as work to time: text, one guided step, decode, by any engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from sanakit.base.errors import RequestError
from sanakit.base.precision import Precision
from sanakit.base.text_states import TextStates
from sanakit.benchmark.engines import EngineSpec
from sanakit.benchmark.models import random_decoder, random_transformer, shared_encoder
from sanakit.benchmark.peers import PEERS
from sanakit.benchmark.subject import INSTRUCTION, WORDS, Subject, Work, tokens, weight_bytes
from sanakit.pipeline.decoder import decode_latent
from sanakit.pipeline.engine import choose_engine, edit
from sanakit.transformer import TextKV

Stage = Callable[[Subject, EngineSpec], Work]


def work_of(stage: str, subject: Subject, spec: EngineSpec) -> Work:
    """What an engine does for a stage, ready to be timed. Raises RequestError where it can't do it."""
    if spec.peer is None:
        return STAGES[stage](subject, spec)
    peer = PEERS[spec.peer]
    if stage not in peer.stages:
        raise RequestError(f"{spec.name} runs {' and '.join(peer.stages)} only")
    peer.check(spec, subject.device.type)
    return peer.stages[stage](subject, spec)


def step(subject: Subject, spec: EngineSpec) -> Work:
    """One step with guidance, two branches in one batch."""
    dtype = spec.dtype or subject.dtype
    model = random_transformer(subject.shapes.transformer, dtype).to(subject.device)
    noise, time = subject.noise(2, dtype), torch.tensor([500.0], device=subject.device)
    guidance = torch.tensor([4.5], device=subject.device) if model.config.guidance_embed else None
    size = weight_bytes(model)
    runner = _edited(spec, "transformer", model, Precision(subject.device, dtype, "as asked"))
    text_kv = _text_kv(runner, subject.words(dtype, WORDS))
    return Work(run=lambda: runner(noise, time, text_kv, guidance), size=size)


def decode(subject: Subject, spec: EngineSpec) -> Work:
    """One latent to pixels, large ones in tiles where ours decides so."""
    dtype = spec.dtype or subject.dtype
    model = random_decoder(subject.shapes.autoencoder, dtype).to(subject.device)
    latent, size = subject.noise(1, dtype), weight_bytes(model)
    runner = _edited(spec, "decoder", model, Precision(subject.device, dtype, "as asked"))
    return Work(run=lambda: decode_latent(runner, latent), size=size)


def text(subject: Subject, spec: EngineSpec) -> Work:
    """Prompt and null prompt to states, over real tokens only."""
    dtype = spec.dtype or subject.dtype
    model = shared_encoder(subject, dtype)
    batches = [tokens(length, length, subject.device) for length in (INSTRUCTION + WORDS, 1)]

    def run() -> Tensor:
        states = [
            model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            for ids, mask in batches
        ]
        return torch.cat(states, dim=1)

    return Work(run=run, size=weight_bytes(model))


STAGES: dict[str, Stage] = {"text": text, "step": step, "decode": decode}
"""Ours; those of others are in `peers`."""


def _text_kv(model: Any, words: TextStates) -> TextKV:
    """Keys and values of a text as the pipeline computes them once per image."""
    with torch.no_grad():
        text_kv: TextKV = model.precompute_text(words)
    return replace(text_kv, mask=None)


def _edited(spec: EngineSpec, part: str, model: nn.Module, precision: Precision) -> Any:
    return edit(model, part, choose_engine(spec.fast, precision))
