"""Linear layers in int8: which are replaced, what they give, and how a whole transformer bears it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sanakit.adapt import Int8Linear, quantise
from sanakit.adapt.quantise import KEPT, fuse_quantisation
from sanakit.base.sizes import Grid
from sanakit.base.text_states import TextStates
from sanakit.kernels import QuantTokens
from sanakit.transformer import SanaTransformer, TransformerConfig, build_block, initialise

CONFIG = TransformerConfig(
    latent_channels=4, width=256, depth=2, heads=8, cross_heads=4, text_width=64, qk_norm=True
)


@pytest.fixture
def model() -> SanaTransformer:
    torch.manual_seed(0)
    model = initialise(SanaTransformer(CONFIG)).eval()
    nn.init.normal_(model.head.out.weight)  # a fresh head gives zeros
    return model


def velocity(model: SanaTransformer) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    text = TextStates(torch.randn(2, 6, 64, generator=generator), torch.ones(2, 6, dtype=torch.bool))
    with torch.no_grad():
        return model(torch.randn(2, 4, 4, 4, generator=generator), torch.tensor([100.0, 800.0]), text)


def test_a_layer_equals_the_rounded_product() -> None:
    linear = nn.Linear(300, 40)
    layer, x = Int8Linear.of(linear), torch.randn(2, 7, 300)
    assert (layer.out_features, layer.weight.dtype) == (40, torch.int8)
    wanted = linear(x)
    error = torch.linalg.norm(layer(x) - wanted) / torch.linalg.norm(wanted)
    assert 0.001 < error < 0.02
    assert layer(x.bfloat16()).dtype == torch.bfloat16


def test_what_is_replaced_and_what_is_kept_has_a_reason(model: SanaTransformer) -> None:
    before = {name for name, part in model.named_modules() if isinstance(part, nn.Linear)}
    report = quantise(model)
    assert {
        "blocks.1.attention.qkv",
        "blocks.0.attention.out",
        "blocks.0.ffn.expand",
        "blocks.1.ffn.project",
    } <= set(report.replaced)
    assert {"blocks.0.cross.kv", "blocks.0.cross.q", "modulation", "head.out", "text.input"} <= set(
        report.kept
    )
    assert set(report.replaced) | set(report.kept) == before
    assert not set(report.replaced) & set(report.kept)
    assert all(report.kept.values())
    for name in report.replaced:
        assert isinstance(model.get_submodule(name), Int8Linear)


def test_small_layers_stay(model: SanaTransformer) -> None:
    report = quantise(model, KEPT, smallest=300)
    assert "256 inputs" in report.kept["blocks.0.attention.qkv"]
    assert "blocks.0.ffn.project" in report.replaced


def test_the_velocity_stays_nearly_the_same(model: SanaTransformer) -> None:
    wanted = velocity(model)
    quantise(model)
    error = torch.linalg.norm(velocity(model) - wanted) / torch.linalg.norm(wanted)
    assert 1e-4 < error < 0.02


def test_weights_survive_a_state_dict(model: SanaTransformer) -> None:
    quantise(model)
    other = initialise(SanaTransformer(CONFIG)).eval()
    quantise(other)
    other.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(velocity(other), velocity(model))
    assert velocity(model).std() > 0.1


def test_norms_round_for_the_layers_behind_them(triton_everywhere: None) -> None:
    """As on a GPU: the same numbers, with tokens that reach the products in int8."""
    config = TransformerConfig(width=16, depth=1, heads=2, cross_heads=2, text_width=8, qk_norm=True)
    block = build_block(config).requires_grad_(False)
    quantise(block, kept={"cross.*": "read no norm"}, smallest=1)
    x, modulation, grid = torch.randn(2, 6, 16), torch.randn(1, 1, 6, 16), Grid(1, 2, 3)
    text_kv = block.cross.project_kv(torch.randn(2, 3, 16))
    wanted = block(x, modulation, text_kv, None, grid)
    fuse_quantisation(block)
    seen: list[type] = []
    for layer in (block.attention.qkv, block.ffn.expand, block.attention.out):
        layer.register_forward_pre_hook(lambda _, given: seen.append(type(given[0])))
    assert torch.equal(block(x, modulation, text_kv, None, grid), wanted)
    assert seen == [QuantTokens, torch.Tensor, QuantTokens]


def test_norms_round_nowhere_else(model: SanaTransformer) -> None:
    """Without such a row, and where gradients are asked for, tokens reach the products as they are."""
    quantise(model)
    wanted = velocity(model)
    fuse_quantisation(model)
    assert torch.equal(velocity(model), wanted)
