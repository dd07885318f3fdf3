"""The details that ports of SANA get wrong, one test each."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from sanakit.base import ConfigError
from sanakit.base.dialect import DIFFUSERS, OFFICIAL
from sanakit.base.sizes import Grid
from sanakit.base.text_states import TextStates
from sanakit.layers import sinusoid
from sanakit.transformer import PRESETS, Positions, SanaTransformer, TransformerConfig, initialise

TINY = TransformerConfig(latent_channels=4, width=32, depth=3, heads=4, cross_heads=2, text_width=8)
PARAMETERS = {
    "sana-0.6b-512": 591_747_872,
    "sana-0.6b-1024": 591_747_872,
    "sana-1.6b-512": 1_604_462_752,
    "sana-1.6b-1024": 1_604_462_752,
    "sana-1.6b-2k": 1_604_462_752,
    "sana-1.6b-4k": 1_604_462_752,
    "sana1.5-1.6b-1024": 1_604_641_952,
    "sana1.5-4.8b-1024": 4_721_825_952,
    "sprint-0.6b-1024": 593_501_216,
    "sprint-1.6b-1024": 1_610_237_472,
}


def text(batch: int = 2, length: int = 5, width: int = 8) -> TextStates:
    return TextStates(torch.randn(batch, length, width), torch.ones(batch, length, dtype=torch.bool))


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_parameter_counts(name: str) -> None:
    with torch.device("meta"):
        model = SanaTransformer(PRESETS[name])
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]


def test_sinusoid_has_cosines_first_in_float32() -> None:
    got = sinusoid(torch.tensor([0.0, 3.0], dtype=torch.bfloat16), 8)
    assert got.dtype == torch.float32
    assert torch.equal(got[0], torch.tensor([1.0] * 4 + [0.0] * 4))
    assert got[1, 0].item() == pytest.approx(math.cos(3.0))
    assert got[1, 4].item() == pytest.approx(math.sin(3.0))


def test_cross_attention_reads_the_raw_residual() -> None:
    block = SanaTransformer(TINY).blocks[0]
    seen = {}
    block.cross.register_forward_pre_hook(lambda _, args: seen.update(x=args[0]))
    block.attention.register_forward_hook(lambda *_: torch.zeros(2, 6, 32))
    x = torch.randn(2, 6, 32) * 50
    text_kv = block.cross.project_kv(torch.randn(2, 5, 32))
    block(x, torch.randn(2, 1, 6, 32), text_kv, torch.ones(2, 5).bool(), Grid(1, 2, 3))
    assert torch.equal(seen["x"], x)


def test_qk_norm_is_over_the_full_width_and_before_the_relu() -> None:
    config = TransformerConfig(
        latent_channels=4, width=32, depth=1, heads=4, cross_heads=2, text_width=8, qk_norm=True
    )
    attention = SanaTransformer(config).blocks[0].attention
    assert attention.norm_q.weight.shape == (32,)
    with torch.no_grad():
        attention.norm_k.weight.fill_(-1.0)  # a negative weight matters only if the ReLU comes after the norm
        x = torch.randn(1, 7, 32)
        flipped = attention(x)
        attention.norm_k.weight.fill_(1.0)
        assert not torch.allclose(flipped, attention(x))


def test_gates_of_a_fresh_block_are_open() -> None:
    torch.manual_seed(1)
    model = initialise(SanaTransformer(TINY))
    assert all(block.table[2].abs().min() > 0 and block.table[5].abs().min() > 0 for block in model.blocks)


def test_head_takes_the_time_embedding_itself() -> None:
    model = SanaTransformer(TINY)
    seen = {}
    model.head.register_forward_pre_hook(lambda _, args: seen.update(t_emb=args[1]))
    time = torch.tensor([10.0, 500.0])
    model(torch.randn(2, 4, 4, 4), time, text())
    assert torch.equal(seen["t_emb"], model.time(time))


def test_masked_tokens_and_trimming_do_not_change_the_picture() -> None:
    model = SanaTransformer(TINY).eval()
    short = text(length=4)
    padded = TextStates(
        torch.cat([short.states, torch.full((2, 6, 8), 1e3)], dim=1),
        torch.cat([short.mask, torch.zeros(2, 6).bool()], dim=1),
    )
    latent, time = torch.randn(2, 4, 4, 6), torch.tensor([5.0, 900.0])
    with torch.no_grad():
        torch.testing.assert_close(
            model(latent, time, short), model(latent, time, padded), atol=2e-6, rtol=1e-5
        )


def test_dialects_change_the_epsilons() -> None:
    assert TINY.with_dialect(OFFICIAL).attention_eps == 1e-8
    assert TINY.with_dialect(OFFICIAL).cross_norm_eps == 1e-6
    assert TINY.with_dialect(DIFFUSERS) == TINY
    config = TransformerConfig(
        latent_channels=4, width=32, depth=1, heads=4, cross_heads=2, text_width=8, qk_norm=True
    )
    block = SanaTransformer(config.with_dialect(OFFICIAL)).blocks[0]
    assert (block.attention.eps, block.attention.norm_q.eps, block.cross.norm_k.eps) == (1e-8, 1e-5, 1e-6)


def test_tokens_of_perturbed_samples_see_only_themselves() -> None:
    model = SanaTransformer(TINY).eval()
    latent, time, words = torch.randn(3, 4, 4, 4), torch.full((3,), 300.0), text(3)
    with torch.no_grad():
        plain = model(latent, time, words)
        perturbed = model(latent, time, words, perturbed={1: torch.tensor([False, True, False])})
    assert torch.equal(plain[::2], perturbed[::2])
    assert not torch.allclose(plain[1], perturbed[1])


def test_positions_of_a_call_stand_in_for_those_of_the_config() -> None:
    small = SanaTransformer(replace(TINY, position_scale=1.0, sample_size=8)).eval()
    large = SanaTransformer(replace(TINY, position_scale=1.0, sample_size=16)).eval()
    large.load_state_dict(small.state_dict())
    latent, time, words = torch.randn(2, 4, 4, 4), torch.full((2,), 300.0), text()
    with torch.no_grad():
        own, called = large(latent, time, words), small(latent, time, words, positions=Positions(16, 1.0))
        assert torch.equal(own, called)
        assert not torch.equal(own, small(latent, time, words))


def test_positions_stay_float32_in_a_half_precision_network() -> None:
    config = TransformerConfig(
        latent_channels=4,
        width=32,
        depth=1,
        heads=4,
        cross_heads=2,
        text_width=8,
        position_scale=1.0,
        sample_size=64,
    )
    model = SanaTransformer(config).to(torch.bfloat16)
    with torch.no_grad():
        model.patch.weight.zero_()
        model.patch.bias.zero_()
        tokens = model.embed_latent(torch.zeros(1, 4, 64, 64), Grid(1, 64, 64), config.positions)
    wide = SanaTransformer(config)
    with torch.no_grad():
        wide.patch.weight.zero_()
        wide.patch.bias.zero_()
        exact = wide.embed_latent(torch.zeros(1, 4, 64, 64), Grid(1, 64, 64), config.positions)
    assert torch.equal(tokens, exact.to(torch.bfloat16))


def test_samples_do_not_see_each_other() -> None:
    model = SanaTransformer(TINY).eval()
    latent, time, words = torch.randn(3, 4, 5, 4), torch.tensor([1.0, 2.0, 3.0]), text(3)
    with torch.no_grad():
        whole = model(latent, time, words)
        alone = model(latent[1:2], time[1:2], TextStates(words.states[1:2], words.mask[1:2]))
    torch.testing.assert_close(whole[1:2], alone, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("change", [{"heads": 5}, {"cross_heads": 3}, {"width": 0}, {"depth": 0}])
def test_contradictory_configs_are_refused(change: dict[str, int]) -> None:
    fields = {"width": 32, "depth": 1, "heads": 4, "cross_heads": 2} | change
    with pytest.raises(ConfigError):
        TransformerConfig(**fields)
