"""The same networks as diffusers runs them, from our weights: the peers in the benchmark.

The one place in the package that knows diffusers, and only when a peer is asked for.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sanakit.autoencoder import DCAE
from sanakit.base.errors import RequestError
from sanakit.transformer import SanaTransformer
from sanakit.weights.formats import diffusers_autoencoder, diffusers_transformer


def peer_transformer(model: SanaTransformer) -> nn.Module:
    """`SanaTransformer2DModel` with the weights of `model`. Raises RequestError where diffusers is missing."""
    config = diffusers_transformer.to_config(model.config)
    state = diffusers_transformer.table(model.config).to_theirs(model.state_dict())
    return _assigned(_diffusers().SanaTransformer2DModel, config, state)


def peer_decoder(model: DCAE) -> nn.Module:
    """The decoder of `AutoencoderDC` with the weights of `model.decoder`."""
    table = diffusers_autoencoder.table(model.config)
    with torch.device("meta"):
        whole = DCAE(model.config).state_dict()
    state = table.to_theirs({**whole, **model.state_dict()})
    decoder = {
        name.removeprefix("decoder."): value for name, value in state.items() if name.startswith("decoder.")
    }
    with torch.device("meta"):
        peer = _diffusers().AutoencoderDC.from_config(diffusers_autoencoder.to_config(model.config)).decoder
    peer.load_state_dict(decoder, assign=True)
    found: nn.Module = peer.eval().requires_grad_(False)
    return found


def _assigned(kind: Any, config: dict[str, Any], state: dict[str, Tensor]) -> nn.Module:
    with torch.device("meta"):
        model: nn.Module = kind.from_config(config)
    model.load_state_dict(state, assign=True)
    return model.eval().requires_grad_(False)


def _diffusers() -> Any:
    try:
        import diffusers
    except ImportError:
        raise RequestError(
            "the benchmark was asked for diffusers, which is not installed: pip install diffusers, or leave it out."
        ) from None
    return diffusers
