"""The transformer equals diffusers' SanaTransformer2DModel with the same weights, for every family and odd sizes."""

from __future__ import annotations

import pytest
import torch
from diffusers import SanaTransformer2DModel

from sanakit.base.text_states import TextStates
from sanakit.transformer import SanaTransformer, TransformerConfig
from sanakit.weights.formats import diffusers_transformer
from tests.oracles.bounds import within

BOUND = 1e-5

CONFIGS = {
    "sana": TransformerConfig(latent_channels=4, width=32, depth=3, heads=4, cross_heads=2, text_width=12),
    "odd": TransformerConfig(latent_channels=3, width=24, depth=2, heads=3, cross_heads=4, text_width=7, ffn_ratio=1.7),
    "qk": TransformerConfig(latent_channels=4, width=48, depth=2, heads=6, cross_heads=3, text_width=8, qk_norm=True),
    "patch": TransformerConfig(latent_channels=4, width=32, depth=2, heads=4, cross_heads=2, text_width=9, patch_size=2),  # noqa: E501
    "sprint": TransformerConfig(
        latent_channels=4, width=32, depth=2, heads=4, cross_heads=2, text_width=8, qk_norm=True, guidance_embed=True
    ),
    "positions": TransformerConfig(
        latent_channels=4, width=32, depth=2, heads=4, cross_heads=2, text_width=8, position_scale=2.0, sample_size=8
    ),
    "teacher": TransformerConfig(
        latent_channels=4, width=64, depth=2, heads=2, cross_heads=2, text_width=8, qk_norm=True, time_scale=0.001
    ),
}  # fmt: skip


def twins(config: TransformerConfig) -> tuple[SanaTransformer, SanaTransformer2DModel]:
    """Ours and diffusers' with the same random weights (all of them, zeros included)."""
    theirs = SanaTransformer2DModel.from_config(diffusers_transformer.to_config(config)).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(std=0.15)
    ours = SanaTransformer(config).eval()
    ours.load_state_dict(diffusers_transformer.table(config).to_ours(theirs.state_dict()))
    return ours, theirs


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(("height", "width"), [(8, 8), (6, 10), (2, 14)])
def test_forward_equals_diffusers(name: str, height: int, width: int) -> None:
    config = CONFIGS[name]
    ours, theirs = twins(config)
    latent = torch.randn(3, config.latent_channels, height, width)
    time = torch.tensor([0.0, 421.0, 999.0])
    states = torch.randn(3, 9, config.text_width) * 20
    mask = torch.arange(9)[None] < torch.tensor([[9], [4], [1]])
    guidance = torch.tensor([1.0, 4.5, 7.0]) if config.guidance_embed else None
    scaled = None if guidance is None else guidance * config.guidance_scale
    with torch.no_grad():
        got = ours(latent, time, TextStates(states, mask), guidance=guidance)
        want = theirs(
            latent,
            states,
            timestep=time * config.time_scale,
            guidance=scaled,
            encoder_attention_mask=mask.float(),
        ).sample
    within("transformer, forward", got, want, BOUND)


def test_gradients_equal_diffusers() -> None:
    config = CONFIGS["qk"]
    ours, theirs = twins(config)
    latent, states = torch.randn(2, 4, 6, 5), torch.randn(2, 7, 8)
    mask = torch.tensor([[1] * 7, [1] * 3 + [0] * 4]).bool()
    time = torch.tensor([100.0, 700.0])
    ours(latent, time, TextStates(states, mask)).square().sum().backward()
    theirs(
        latent, states, timestep=time, encoder_attention_mask=mask.float()
    ).sample.square().sum().backward()
    grads = {name: p.grad for name, p in theirs.named_parameters()}
    want = diffusers_transformer.table(config).to_ours(grads)
    for name, parameter in ours.named_parameters():
        within("transformer, gradients", parameter.grad, want[name], 1e-4)
