"""The stages of an image as work to time: text, one guided step, decode, by any engine."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sanakit.base.errors import RequestError
from sanakit.base.precision import Precision
from sanakit.base.text_states import TextStates
from sanakit.benchmark.engines import EngineSpec, MakeWork
from sanakit.benchmark.peers import PEERS
from sanakit.benchmark.workload import (
    WORDS,
    Encoders,
    Work,
    Workload,
    random_decoder,
    random_transformer,
    real_tokens,
    shared_encoder,
    tokens,
    weight_bytes,
)
from sanakit.pipeline.decoder import decode_latent
from sanakit.pipeline.engine import choose_engine, edit
from sanakit.transformer import TextKV


def work_of(stage: str, workload: Workload, spec: EngineSpec, encoders: Encoders) -> Work:
    """Return what an engine does for a stage, ready to be timed. Raises RequestError if it can't do it."""
    if spec.peer is None:
        return STAGES[stage](workload, spec, encoders)
    peer = PEERS[spec.peer]
    if stage not in peer.stages:
        raise RequestError(f"{spec.name} runs {' and '.join(peer.stages)} only")
    peer.check(spec, workload.device.type)
    return peer.stages[stage](workload, spec, encoders)


def step(workload: Workload, spec: EngineSpec, encoders: Encoders) -> Work:
    """One step with guidance, its branches in one batch."""
    dtype = spec.dtype or workload.dtype
    model = random_transformer(workload.shapes.transformer, dtype).to(workload.device)
    noise, time = workload.noise(workload.branches, dtype), torch.tensor([500.0], device=workload.device)
    guidance = torch.tensor([4.5], device=workload.device) if model.config.guidance_embed else None
    size = weight_bytes(model)
    runner = _edited(spec, "transformer", model, Precision(workload.device, dtype, "as asked"))
    text_kv = text_of_image(runner, workload.words(dtype, WORDS))
    return Work(run=lambda: runner(noise, time, text_kv, guidance), size=size)


def decode(workload: Workload, spec: EngineSpec, encoders: Encoders) -> Work:
    """One latent to pixels, large ones in tiles if ours decides so."""
    dtype = spec.dtype or workload.dtype
    model = random_decoder(workload.shapes.autoencoder, dtype).to(workload.device)
    latent, size = workload.noise(1, dtype), weight_bytes(model)
    runner = _edited(spec, "decoder", model, Precision(workload.device, dtype, "as asked"))
    return Work(run=lambda: decode_latent(runner, latent), size=size)


def text(workload: Workload, spec: EngineSpec, encoders: Encoders) -> Work:
    """Prompt, and null prompt if there is guidance, to states, over real tokens only."""
    dtype = spec.dtype or workload.dtype
    model = shared_encoder(workload, dtype, encoders)
    batches = [tokens(length, length, workload.device) for length in real_tokens(workload)]

    def run() -> Tensor:
        states = [
            model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            for ids, mask in batches
        ]
        return torch.cat(states, dim=1)

    return Work(run=run, size=weight_bytes(model))


STAGES: dict[str, MakeWork] = {"text": text, "step": step, "decode": decode}
"""Stages of our engines; those of others are in `peers`."""


def text_of_image(model: Any, words: TextStates) -> TextKV:
    """Keys and values of a text as the pipeline computes them once per image; padding of a recording stays hidden."""
    with torch.no_grad():
        text_kv: TextKV = model.precompute_text(words)
    return text_kv.unpadded()


def _edited(spec: EngineSpec, part: str, model: nn.Module, precision: Precision) -> Any:
    return edit(model, part, choose_engine(spec.fast, precision))
