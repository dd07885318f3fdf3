"""Parts of ablations: they fit where SANA's are, cost as much, and do what they are there to do."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from recipes.ablation_parts import (
    PlainFFN,
    ablated,
    plain_ffn,
    softmax_attention,
    softmax_mix,
    with_added_positions,
    with_rotary_positions,
    without_positions,
)
from sanakit.base.sizes import Grid
from sanakit.base.text_states import TextStates
from sanakit.kernels import linear_attention
from sanakit.layers import LinearSelfAttention, MixFFN, rotary_angles
from sanakit.transformer import PRESETS, SanaTransformer, TransformerConfig, initialise

TINY = TransformerConfig(
    width=24, depth=2, heads=2, cross_heads=2, latent_channels=4, text_width=8, sample_size=4, qk_norm=True
)
POSITIONS = {
    "none": without_positions,
    "added": with_added_positions,
    "rotary": with_rotary_positions,
}


def attention(
    width: int, mix: Callable[..., Tensor] = softmax_mix, qk_norm: bool = True
) -> LinearSelfAttention:
    heads = width // 24 or 3
    return LinearSelfAttention(width, heads, eps=1e-15, qk_norm=qk_norm, qk_norm_eps=1e-5, mix=mix)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def run(model: SanaTransformer, latent: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    states = torch.randn(len(latent), 3, TINY.text_width, generator=generator)
    text = TextStates(states, torch.ones(len(latent), 3, dtype=torch.bool))
    out: Tensor = model(latent, torch.full((len(latent),), 500.0), text)
    return out


def scrambled(model: SanaTransformer) -> SanaTransformer:
    """Weights under which every part has its say: the published start has a head of zeros."""
    torch.manual_seed(9)
    initialise(model)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3 if parameter.ndim > 1 else 0.1)
    return model


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("ffn", [None, plain_ffn])
@pytest.mark.parametrize("attention", [None, softmax_attention])
def test_every_variant_runs_and_trains(
    attention: Callable[[TransformerConfig], nn.Module] | None,
    ffn: Callable[[TransformerConfig], nn.Module] | None,
    positions: str,
) -> None:
    model = scrambled(ablated(POSITIONS[positions](TINY), attention, ffn))
    out = run(model, torch.randn(2, 4, 3, 5))
    assert out.shape == (2, 4, 3, 5)
    out.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in model.parameters())


def test_what_is_not_replaced_keeps_its_name() -> None:
    plain = set(SanaTransformer(TINY).state_dict())
    assert set(ablated(TINY).state_dict()) == plain
    assert set(ablated(TINY, softmax_attention).state_dict()) == plain
    differing = set(ablated(TINY, ffn=plain_ffn).state_dict()) ^ plain
    assert all(".ffn." in name for name in differing)


@pytest.mark.parametrize("name", ["toybox", "sana-0.6b-1024", "sana-1.6b-1024"])
def test_replacements_cost_as_much(name: str) -> None:
    config = PRESETS[name]
    with torch.device("meta"):
        linear = LinearSelfAttention(
            config.width, config.heads, eps=0.0, qk_norm=config.qk_norm, qk_norm_eps=0.0
        )
        assert count(softmax_attention(config)) == count(linear)
        ffn, mixed = plain_ffn(config), MixFFN(config.width, config.ffn_ratio)
    assert abs(count(ffn) - count(mixed)) <= config.width + 1
    assert abs(count(ffn) / count(mixed) - 1) < 1e-3


def test_softmax_attention_is_its_formula() -> None:
    layer, x = attention(12, qk_norm=False), torch.randn(2, 5, 12)
    query, key, value = (part.unflatten(-1, (3, 4)) for part in layer.qkv(x).chunk(3, -1))
    weights = torch.softmax(torch.einsum("bnhd,bmhd->bhnm", query, key) / 2, dim=-1)
    wanted = layer.out(torch.einsum("bhnm,bmhd->bnhd", weights, value).flatten(-2))
    torch.testing.assert_close(layer(x), wanted, rtol=1e-4, atol=1e-5)


def test_tokens_of_perturbed_samples_attend_to_themselves() -> None:
    layer, x = attention(12), torch.randn(3, 5, 12)
    out = layer(x, None, torch.tensor([False, False, True]))
    torch.testing.assert_close(out[:2], layer(x)[:2])
    torch.testing.assert_close(out[2], layer.out(layer.qkv(x)[2, :, 24:]))


@pytest.mark.parametrize("mix", [linear_attention, softmax_mix])
def test_rotary_attention_sees_distances_and_no_places(mix: Callable[..., Tensor]) -> None:
    """The same answer where all tokens move alike, another where they lie elsewhere to each other."""
    layer = attention(48, mix)
    x = torch.randn(1, 12, 48)
    whole = rotary_angles(Grid(1, 9, 9), 24).view(9, 9, 12)
    here, there = (whole[r : r + 3, c : c + 4].reshape(12, 12) for r, c in ((0, 0), (5, 4)))
    torch.testing.assert_close(layer(x, here), layer(x, there), rtol=1e-3, atol=1e-5)
    turned = whole[0:4, 0:3].transpose(0, 1).reshape(12, 12)
    assert (layer(x, here) - layer(x, turned)).abs().max() > 1e-3


@pytest.mark.parametrize("positions", POSITIONS)
def test_without_neighbours_and_positions_a_picture_is_a_bag(positions: str) -> None:
    """With a plain feed-forward only positions can tell a picture from a shuffled one."""
    model = scrambled(ablated(POSITIONS[positions](TINY), ffn=plain_ffn))
    latent, order = torch.randn(1, 4, 4, 4), torch.randperm(16)
    shuffled = run(model, latent.flatten(2)[..., order].view_as(latent)).flatten(2)
    follows = torch.allclose(shuffled, run(model, latent).flatten(2)[..., order], rtol=1e-3, atol=1e-4)
    assert follows == (positions == "none")


def test_the_plain_feed_forward_is_its_formula() -> None:
    ffn, x = PlainFFN(6, 10), torch.randn(2, 4, 6)
    wanted = F.gelu(x @ ffn.expand.weight.T + ffn.expand.bias, approximate="tanh") @ ffn.project.weight.T
    torch.testing.assert_close(ffn(x, Grid(1, 2, 2)), wanted + ffn.project.bias)
