"""The parts on their own: norms, resampling, positions, modulation."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.embeddings import get_2d_sincos_pos_embed
from diffusers.models.normalization import RMSNorm as TheirRMSNorm
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed

from sanakit.base.sizes import Grid
from sanakit.layers import (
    ChannelRMSNorm,
    Downsample,
    RMSNorm,
    Upsample,
    axis_channels,
    channels_to_space,
    group_mean,
    position_table,
    rotary_angles,
    space_to_channels,
    split_modulation,
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rms_norm_rounds_like_diffusers(dtype: torch.dtype) -> None:
    ours, theirs = RMSNorm(24, 1e-5), TheirRMSNorm(24, 1e-5)
    with torch.no_grad():
        ours.weight.normal_()
        theirs.weight.copy_(ours.weight)
    x = (torch.randn(2, 5, 24) * 40).to(dtype)
    assert torch.equal(ours.to(dtype)(x), theirs.to(dtype)(x))


def test_channel_norm_is_the_norm_over_channels() -> None:
    norm = ChannelRMSNorm(6)
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
    x = torch.randn(2, 6, 3, 5)
    want = x / (x.square().mean(1, keepdim=True) + 1e-5).sqrt()
    want = want * norm.weight[:, None, None] + norm.bias[:, None, None]
    torch.testing.assert_close(norm(x), want)
    out = norm(x.contiguous(memory_format=torch.channels_last))
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, want)


def test_shortcuts_are_inverse_where_nothing_is_lost() -> None:
    x = torch.randn(2, 8, 3, 5)
    torch.testing.assert_close(space_to_channels(channels_to_space(x, 8), 8), x)
    torch.testing.assert_close(group_mean(x.repeat_interleave(3, dim=1), 8), x)


@pytest.mark.parametrize("flag", [False, True])
def test_resampling_starts_from_its_shortcut(flag: bool) -> None:
    down, up = Downsample(4, 8, unshuffle=flag), Upsample(8, 4, shuffle=flag)
    for layer in (down, up):
        torch.nn.init.zeros_(layer.conv.weight)
        torch.nn.init.zeros_(layer.conv.bias)
    x = torch.randn(1, 4, 6, 10)
    assert torch.equal(down(x), space_to_channels(x, 8))
    y = torch.randn(1, 8, 3, 5)
    assert torch.equal(up(y), channels_to_space(y, 4))


@pytest.mark.parametrize(("height", "width"), [(8, 8), (6, 12), (16, 4)])
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_position_table_equals_diffusers(height: int, width: int, scale: float) -> None:
    want = get_2d_sincos_pos_embed(
        32, (height, width), base_size=8, interpolation_scale=scale, output_type="pt"
    )
    torch.testing.assert_close(position_table(height, width, 32, 8, scale)[0], want.float())


def test_rotary_angles_equal_the_published_tables() -> None:
    assert axis_channels(112) == (40, 36, 36)
    grid = Grid(3, 4, 5)
    theirs = WanRotaryPosEmbed(112, (1, 1, 1), 16)
    cos, sin = theirs(torch.zeros(1, 2, 3, 4, 5))
    angles = rotary_angles(grid, 112)
    torch.testing.assert_close(angles.cos(), cos.reshape(60, 112)[:, ::2].float(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(angles.sin(), sin.reshape(60, 112)[:, 1::2].float(), atol=1e-5, rtol=1e-5)


def test_modulation_is_shift_scale_gate_for_attention_then_for_the_feed_forward() -> None:
    table = torch.arange(6.0)[:, None].expand(6, 4)
    attn, ffn = split_modulation(table, torch.zeros(2, 1, 6, 4))
    assert [part[0, 0, 0].item() for part in (*attn, *ffn)] == [0, 1, 2, 3, 4, 5]
