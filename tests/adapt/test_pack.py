"""Packed models: what is replaced, and that it draws what the plain model draws."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from sanakit.adapt import PackedLinear, pack
from sanakit.adapt.pack import PackedMixFFN
from sanakit.autoencoder import DCAE
from sanakit.autoencoder import PRESETS as AUTOENCODERS
from sanakit.autoencoder.blocks import GatedConv
from sanakit.base.sizes import Grid
from sanakit.base.text_states import TextStates
from sanakit.kernels import choice
from sanakit.layers import MixFFN, Upsample
from sanakit.transformer import SanaTransformer, TransformerConfig, initialise

CONFIG = TransformerConfig(
    latent_channels=4, width=72, depth=2, heads=6, cross_heads=4, text_width=64, qk_norm=True
)
BOUND = {torch.float32: 1e-5, torch.bfloat16: 3e-2}


def build(dtype: torch.dtype) -> SanaTransformer:
    torch.manual_seed(0)
    model = initialise(SanaTransformer(CONFIG))
    nn.init.normal_(model.head.out.weight)  # a fresh head gives zeros
    return model.to(dtype).eval()


def velocity(model: SanaTransformer) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    text = TextStates(torch.randn(2, 6, 64, generator=generator), torch.ones(2, 6, dtype=torch.bool))
    with torch.no_grad():
        return model(torch.randn(2, 4, 4, 7, generator=generator), torch.tensor([300.0]), text).double()


@pytest.mark.parametrize("dtype", BOUND)
def test_a_packed_model_draws_the_same(dtype: torch.dtype) -> None:
    model = build(dtype)
    wanted = velocity(build(torch.float32))
    pack(model)
    assert torch.linalg.norm(velocity(model) - wanted) <= BOUND[dtype] * torch.linalg.norm(wanted)


def test_what_is_replaced() -> None:
    model = build(torch.float32)
    report = pack(model)
    if not report.replaced:  # a torch without oneDNN, or a machine that it does not serve
        assert "refuses" in report.reasons[0]
        return
    assert {"blocks.0.ffn", "blocks.1.attention.qkv", "blocks.0.cross.q", "head.out"} <= set(report.replaced)
    assert not any(name.startswith(("time.", "text.", "modulation")) for name in report.replaced)
    assert isinstance(model.blocks[0].ffn, PackedMixFFN)
    assert isinstance(model.blocks[1].attention.out, PackedLinear)
    plain = sum(p.numel() for p in build(torch.float32).parameters())
    assert sum(p.numel() for p in model.parameters()) < plain / 2, "no weight is kept twice"


def test_where_plain_torch_is_all_there_is_nothing_is_replaced() -> None:
    model = build(torch.float32)
    with choice.force("linear", "reference"):
        report = pack(model)
    assert report.replaced == ()
    assert report.reasons[-1] == "linear: reference: chosen, forced"
    assert velocity(model).isfinite().all()


def test_a_mix_ffn_of_odd_sizes_with_frames() -> None:
    torch.manual_seed(0)
    ffn = MixFFN(10, 1.5)
    x, grid = torch.randn(2, 3 * 5 * 7, 10), Grid(3, 5, 7)
    with torch.no_grad():
        torch.testing.assert_close(PackedMixFFN(ffn)(x, grid), ffn(x, grid), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("preset", ["toybox", "f32c32-lite-1.1"])
def test_a_packed_autoencoder_decodes_the_same(dtype: torch.dtype, preset: str) -> None:
    """Small widths of the two graphs: upsampling by interpolation and by shuffling."""
    base = AUTOENCODERS[preset]
    thin = [replace(s, width=64 if i > 2 else 32, depth=min(s.depth, 1)) for i, s in enumerate(base.decoder)]
    config = replace(base, encoder=tuple(thin), decoder=tuple(thin))
    torch.manual_seed(0)
    model = DCAE(config).eval()
    latent = torch.randn(2, 32, 2, 3)
    with torch.no_grad():
        wanted = model.decode(latent).double()
        model.to(dtype)
        report = pack(model.decoder)
        got = model.decode(latent.to(dtype)).double()
    assert torch.linalg.norm(got - wanted) <= BOUND[dtype] * torch.linalg.norm(wanted)
    if preset == "toybox":
        assert "stages.1.up" in report.replaced
        products = {"stages.4.blocks.0.ffn", "stages.4.blocks.0.attention.qkv"}
        packs = choice.select("linear", choice.Problem("linear", "cpu", dtype)).prepare is not None
        assert products & set(report.replaced) == (products if packs else set())


def test_upsampling_is_packed_where_products_are_not() -> None:
    """As on a GPU: the small map is convolved four times, everything else stays as it was built."""
    torch.manual_seed(0)
    up = nn.Sequential(Upsample(8, 4, shuffle=False), GatedConv(4))
    x = torch.randn(1, 8, 3, 5)
    with torch.no_grad(), choice.force("linear", "reference"):
        wanted = up(x)
        report = pack(up)
        torch.testing.assert_close(up(x), wanted, rtol=1e-4, atol=1e-5)
    assert report.replaced == ("0",)
    assert "upsample_conv: quarters: chosen" in report.reasons
    with choice.force("linear", "reference"), choice.force("upsample_conv", "reference"):
        assert pack(nn.Sequential(Upsample(8, 4, shuffle=False))).replaced == ()


def test_a_gpu_has_a_row_for_upsampling_by_quarters() -> None:
    cuda = choice.Problem("upsample_conv", "cuda", torch.bfloat16)
    assert choice.select("upsample_conv", cuda).name == "quarters"
