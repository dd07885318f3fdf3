"""diffusers, from our weights: the outside judge of numbers, and the usual way to run these models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sanakit.autoencoder import DCAE, LatentDecoder
from sanakit.benchmark.engines import EngineSpec
from sanakit.benchmark.models import random_decoder, random_transformer, shared_encoder
from sanakit.benchmark.peers.peer import Peer
from sanakit.benchmark.subject import INSTRUCTION, PADDED, WORDS, Subject, Work, tokens, weight_bytes
from sanakit.transformer import SanaTransformer
from sanakit.weights.formats import diffusers_autoencoder, diffusers_transformer


def step(subject: Subject, spec: EngineSpec) -> Work:
    """One step with guidance, two branches in one batch, over padded text."""
    dtype = spec.dtype or subject.dtype
    peer = peer_transformer(random_transformer(subject.shapes.transformer, dtype).to(subject.device))
    run, inputs = _maybe_compiled(peer, spec), step_inputs(subject, dtype)

    def work() -> Tensor:
        result: Tensor = run(**inputs, return_dict=False)[0]
        return result

    return Work(run=work, size=weight_bytes(peer))


def decode(subject: Subject, spec: EngineSpec) -> Work:
    """One latent to pixels."""
    dtype = spec.dtype or subject.dtype
    peer = peer_decoder(random_decoder(subject.shapes.autoencoder, dtype).to(subject.device))
    run, latent = _maybe_compiled(peer, spec), subject.noise(1, dtype)
    return Work(run=lambda: run(latent), size=weight_bytes(peer))


def text(subject: Subject, spec: EngineSpec) -> Work:
    """Prompt and null prompt to states, over padding as well; told are those of real tokens."""
    dtype = spec.dtype or subject.dtype
    model = shared_encoder(subject, dtype)
    run = _maybe_compiled(model, spec)
    lengths = (INSTRUCTION + WORDS, 1)
    padded = (INSTRUCTION + PADDED - 2, PADDED)
    batches = [tokens(real, length, subject.device) for real, length in zip(lengths, padded, strict=True)]

    def work() -> Tensor:
        states = [
            run(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            for ids, mask in batches
        ]
        return torch.cat([s[:, :n] for s, n in zip(states, lengths, strict=True)], dim=1)

    return Work(run=work, size=weight_bytes(model))


PEER = Peer(name="diffusers", libraries=("diffusers",), stages={"text": text, "step": step, "decode": decode})


def step_inputs(subject: Subject, dtype: torch.dtype, time: float = 500.0) -> dict[str, Tensor]:
    """What `SanaTransformer2DModel` is given, by the names of its arguments; time in thousandths."""
    config = subject.shapes.transformer
    words = subject.words(dtype, PADDED)
    moment = torch.full((2,), time if config.time_scale == 1 else time / 1000, device=subject.device)
    inputs = {
        "hidden_states": subject.noise(2, dtype),
        "encoder_hidden_states": words.states,
        "timestep": moment,
        "encoder_attention_mask": words.mask.long(),
    }
    if config.guidance_embed:
        inputs["guidance"] = torch.full((2,), 4.5 * config.guidance_scale, device=subject.device)
    return inputs


def peer_transformer(model: SanaTransformer) -> nn.Module:
    """`SanaTransformer2DModel` with the weights of `model`."""
    import diffusers

    config = diffusers_transformer.to_config(model.config)
    state = diffusers_transformer.table(model.config).to_theirs(model.state_dict())
    return _assigned(diffusers.SanaTransformer2DModel, config, state)


def peer_decoder(model: DCAE | LatentDecoder) -> nn.Module:
    """The decoder of `AutoencoderDC` with the weights of `model.decoder`."""
    import diffusers

    table = diffusers_autoencoder.table(model.config)
    with torch.device("meta"):
        whole = DCAE(model.config).state_dict()
    state = table.to_theirs({**whole, **model.state_dict()})
    decoder = {
        name.removeprefix("decoder."): value for name, value in state.items() if name.startswith("decoder.")
    }
    with torch.device("meta"):
        peer = diffusers.AutoencoderDC.from_config(diffusers_autoencoder.to_config(model.config)).decoder
    peer.load_state_dict(decoder, assign=True)
    found: nn.Module = peer.eval().requires_grad_(False)
    return found


def _assigned(kind: Any, config: dict[str, Any], state: dict[str, Tensor]) -> nn.Module:
    with torch.device("meta"):
        model: nn.Module = kind.from_config(config)
    model.load_state_dict(state, assign=True)
    return model.eval().requires_grad_(False)


def _maybe_compiled(model: nn.Module, spec: EngineSpec) -> Callable[..., Any]:
    return torch.compile(model) if spec.compiled else model
