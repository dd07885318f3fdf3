"""diffusers, from our weights: the outside judge of numbers, and the usual way to run these models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sanakit.autoencoder import DCAE, LatentDecoder
from sanakit.benchmark.engines import EngineSpec, Peer
from sanakit.benchmark.workload import (
    INSTRUCTION,
    PADDED,
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
from sanakit.transformer import SanaTransformer
from sanakit.weights.formats import diffusers_autoencoder, diffusers_transformer


def step(workload: Workload, spec: EngineSpec, encoders: Encoders) -> Work:
    """One step with guidance, its branches in one batch, over padded text."""
    dtype = spec.dtype or workload.dtype
    peer = peer_transformer(random_transformer(workload.shapes.transformer, dtype).to(workload.device))
    run, inputs = _maybe_compiled(peer, spec), step_inputs(workload, dtype)

    def work() -> Tensor:
        result: Tensor = run(**inputs, return_dict=False)[0]
        return result

    return Work(run=work, size=weight_bytes(peer))


def decode(workload: Workload, spec: EngineSpec, encoders: Encoders) -> Work:
    """One latent to pixels."""
    dtype = spec.dtype or workload.dtype
    peer = peer_decoder(random_decoder(workload.shapes.autoencoder, dtype).to(workload.device))
    run, latent = _maybe_compiled(peer, spec), workload.noise(1, dtype)
    return Work(run=lambda: run(latent), size=weight_bytes(peer))


def text(workload: Workload, spec: EngineSpec, encoders: Encoders) -> Work:
    """Prompt, and null prompt if there is guidance, to states, over padding, too; those of real tokens are returned."""
    dtype = spec.dtype or workload.dtype
    model = shared_encoder(workload, dtype, encoders)
    run = _maybe_compiled(model, spec)
    lengths = real_tokens(workload)
    padded = (INSTRUCTION + PADDED - 2, PADDED)[: len(lengths)]
    batches = [tokens(real, length, workload.device) for real, length in zip(lengths, padded, strict=True)]

    def work() -> Tensor:
        states = [
            run(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            for ids, mask in batches
        ]
        return torch.cat([s[:, :n] for s, n in zip(states, lengths, strict=True)], dim=1)

    return Work(run=work, size=weight_bytes(model))


PEER = Peer(name="diffusers", libraries=("diffusers",), stages={"text": text, "step": step, "decode": decode})


def step_inputs(workload: Workload, dtype: torch.dtype, time: float = 500.0) -> dict[str, Tensor]:
    """Return the arguments of `SanaTransformer2DModel` by name; time in thousandths."""
    config = workload.shapes.transformer
    words = workload.words(dtype, PADDED)
    branches = workload.branches
    t = torch.full((branches,), time if config.time_scale == 1 else time / 1000, device=workload.device)
    inputs = {
        "hidden_states": workload.noise(branches, dtype),
        "encoder_hidden_states": words.states,
        "timestep": t,
        "encoder_attention_mask": words.mask.long(),
    }
    if config.guidance_embed:
        inputs["guidance"] = torch.full((branches,), 4.5 * config.guidance_scale, device=workload.device)
    return inputs


def peer_transformer(model: SanaTransformer) -> nn.Module:
    """Return `SanaTransformer2DModel` with the weights of `model`."""
    import diffusers

    config = diffusers_transformer.to_config(model.config)
    state = diffusers_transformer.table(model.config).to_theirs(model.state_dict())
    return _assigned(diffusers.SanaTransformer2DModel, config, state)


def peer_decoder(model: DCAE | LatentDecoder) -> nn.Module:
    """Return the decoder of `AutoencoderDC` with the weights of `model.decoder`."""
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
