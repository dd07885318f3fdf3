"""How much arithmetic and memory a training step takes, counted without doing it, and what this machine can do."""

from __future__ import annotations

import time

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from sanakit.base.values import TextStates
from sanakit.transformer import SanaTransformer, TransformerConfig

_META = torch.device("meta")
_BACKWARD = 3  # a forward pass, and twice as much for the gradients of inputs and weights
_TOKENS, _INNER, _OUTER = 2048, 1152, 5760


def step_operations(config: TransformerConfig, side: int, samples: int, words: int) -> float:
    """Operations of a training step at latents [samples, C, side, side]; a multiplication and a sum are two."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        _forward(config, side, 1, words)
    return float(_BACKWARD * samples * counter.get_total_flops())


def activation_bytes(config: TransformerConfig, side: int, samples: int, words: int) -> int:
    """Bytes that a forward pass in float32 keeps for its backward pass, weights left out."""
    found: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            storage = tensor.untyped_storage()
            found[storage._cdata] = storage.nbytes()
        kept.append(tensor)
        return tensor

    kept: list[Tensor] = []  # alive, so that no two share an address
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        _forward(config, side, 1, words)
    return samples * sum(found.values())


def _forward(config: TransformerConfig, side: int, samples: int, words: int) -> Tensor:
    with _META:
        model = SanaTransformer(config)
        text = TextStates(
            torch.empty(samples, words, config.text_width), torch.ones(samples, words, dtype=torch.bool)
        )
        latent = torch.empty(samples, config.latent_channels, side, side)
        guidance = torch.empty(samples) if config.guidance_embed else None
        out: Tensor = model(latent, torch.empty(samples), text, guidance)
    return out


@torch.no_grad()
def product_rate(device: torch.device, dtype: torch.dtype, rounds: int = 5) -> float:
    """Operations per second of a matrix product as SANA has them, the best of some rounds."""
    x = torch.randn(_TOKENS, _INNER, device=device).to(dtype)
    weight = torch.randn(_OUTER, _INNER, device=device).to(dtype)
    best = float("inf")
    for _ in range(rounds + 1):
        begun = time.perf_counter()
        torch.nn.functional.linear(x, weight)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - begun)
    return 2 * _TOKENS * _INNER * _OUTER / best
