"""A transformer and its text encoder as one network, so that they train as one: one optimiser, average, checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from sanakit.text.tokens import Tokens, read_tokens
from sanakit.transformer import Positions, SanaTransformer

_TRANSFORMER, _TEXT = "transformer", "text_encoder"


class JointNetwork(nn.Module):
    """Reads tokens and predicts velocities. FSDP gathers what lies outside the layers of both in this forward pass."""

    def __init__(self, transformer: SanaTransformer, text_encoder: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer
        self.text_encoder = text_encoder

    def forward(self, x: Tensor, t: Tensor, tokens: Tokens, positions: Positions | None = None) -> Tensor:
        """x [B, C, h, w], t [B], tokens of B captions, positions as in `SanaTransformer` -> velocity [B, C, h, w]."""
        encoder = cast(Any, self.text_encoder)  # a Gemma2Model
        velocity: Tensor = self.transformer(x, t, read_tokens(encoder, tokens), positions=positions)
        return velocity


def transformer_of(network: nn.Module) -> SanaTransformer:
    """The transformer of a network under training."""
    return network.transformer if isinstance(network, JointNetwork) else cast(SanaTransformer, network)


def layers_of(network: nn.Module) -> Sequence[nn.Module]:
    """The layers of the text encoder, where it is trained."""
    return list(cast(Any, network.text_encoder).layers) if isinstance(network, JointNetwork) else []


def transformer_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Those of the transformer, under its own names, among the weights of the network."""
    return _inside(weights, _TRANSFORMER) if isinstance(network, JointNetwork) else weights


def text_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor] | None:
    """Those of the text encoder, None where it is frozen."""
    return _inside(weights, _TEXT) if isinstance(network, JointNetwork) else None


def scale_rate(optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter], scale: float) -> None:
    """Give some parameters groups of their own, whose learning rate is `scale` times that of the others, in place."""
    apart = {id(parameter) for parameter in parameters}
    for group in list(optimizer.param_groups):
        chosen = [parameter for parameter in group["params"] if id(parameter) in apart]
        if chosen:
            group["params"] = [parameter for parameter in group["params"] if id(parameter) not in apart]
            optimizer.add_param_group({**group, "params": chosen, "scale": scale})


def _inside(weights: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    prefix = f"{name}."
    return {key.removeprefix(prefix): weight for key, weight in weights.items() if key.startswith(prefix)}
