"""DC-AE equals diffusers' AutoencoderDC with the same weights; tiling covers every pixel; bad configs are refused."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderDC

from sanakit.autoencoder import DCAE, PRESETS, AutoencoderConfig, Stage, decode_tiled, tiling
from sanakit.base import ConfigError, RequestError
from sanakit.weights.formats import diffusers_autoencoder
from tests.oracles.bounds import within

BOUND = 1e-5

SANA = AutoencoderConfig(
    latent_channels=4,
    head_dim=4,
    encoder=(Stage("res", 8, 1), Stage("res", 8, 1), Stage("evit", 8, 2, (5,)), Stage("evit", 16, 1, (5,))),
    decoder=(Stage("res", 8, 2), Stage("res", 8, 1), Stage("evit", 8, 1, (5,)), Stage("evit", 16, 2, (5,))),
    scaling_factor=0.41407,
)
LITE = AutoencoderConfig(
    latent_channels=4,
    head_dim=4,
    encoder=SANA.encoder,
    decoder=(Stage("res", 8, 0), Stage("res", 8, 1), Stage("res", 8, 1), Stage("res", 16, 1)),
    upsample="shuffle",
    decoder_out_act="silu",
)
UNSHUFFLE = AutoencoderConfig(
    latent_channels=2,
    head_dim=8,
    encoder=(Stage("res", 4, 0), Stage("res", 8, 1), Stage("evit", 16, 1)),
    decoder=(Stage("res", 4, 0), Stage("res", 8, 1), Stage("evit", 16, 1, (3, 5))),
    downsample="unshuffle",
)
CONFIGS = {"sana": SANA, "lite": LITE, "unshuffle": UNSHUFFLE, "toybox": PRESETS["toybox"]}


def twins(config: AutoencoderConfig) -> tuple[DCAE, AutoencoderDC]:
    """Ours and diffusers' with the same random weights."""
    theirs = AutoencoderDC.from_config(diffusers_autoencoder.to_config(config)).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            parameter.add_(torch.randn_like(parameter) * (0.3 if "norm" in name else 0.02))
    ours = DCAE(config).eval()
    ours.load_state_dict(diffusers_autoencoder.table(config).to_ours(theirs.state_dict()))
    return ours, theirs


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("size", [(32, 32), (64, 96)])
def test_both_ways_equal_diffusers(name: str, size: tuple[int, int]) -> None:
    config = CONFIGS[name]
    ours, theirs = twins(config)
    pixels = torch.rand(2, 3, *size) * 2 - 1
    with torch.no_grad():
        within("DC-AE, encode", ours.encode(pixels), (want := theirs.encode(pixels).latent), BOUND)
        latent = torch.randn_like(want)
        within("DC-AE, decode", ours.decode(latent), theirs.decode(latent).sample, BOUND)


@pytest.mark.parametrize(
    ("name", "count"),
    [("f32c32-sana-1.0", 312_250_275), ("f32c32-sana-1.1", 312_250_275), ("f32c32-lite-1.1", 421_181_228)],
)
def test_published_parameter_counts(name: str, count: int) -> None:
    with torch.device("meta"):
        model = DCAE(PRESETS[name])
    assert sum(p.numel() for p in model.parameters()) == count
    assert model.config.ratio == 32


@pytest.mark.parametrize(
    ("name", "rows"),
    [*((name, rows) for name in ("sana", "lite", "unshuffle") for rows in (1, 3, 7)), ("toybox", 3)],
)
def test_bands_give_every_row_as_the_whole_map_does(
    name: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CONFIGS[name]
    model = twins(config)[0].double()
    latent = torch.randn(2, config.latent_channels, 7, 5, dtype=torch.float64)
    with torch.no_grad():
        whole = model.decode(latent)
        width = config.decoder[0].width
        monkeypatch.setattr(tiling, "BAND", 2 * width * rows * whole.shape[-1] * 8)
        heights = set[int]()
        model.decoder.norm.register_forward_pre_hook(lambda module, args: heights.add(args[0].shape[-2]))
        banded = model.decode(latent)
    assert max(heights) < whole.shape[-2] // 2
    torch.testing.assert_close(banded, whole, rtol=0, atol=1e-12)


def test_gradients_never_run_in_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiling, "BAND", 1)
    model, latent = DCAE(SANA), torch.randn(1, 4, 3, 3, requires_grad=True)
    model.decode(latent).sum().backward()
    assert latent.grad is not None and bool(latent.grad.any())


def test_one_tile_is_the_plain_decode() -> None:
    model = DCAE(SANA).eval()
    latent = torch.randn(1, 4, 6, 6)
    with torch.no_grad():
        torch.testing.assert_close(decode_tiled(model, latent, tile=64, stride=32), model.decode(latent))


class Local(DCAE):
    """An autoencoder that decodes single positions, so that tiling must be exact."""

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        return latent[:, :3].repeat_interleave(8, -1).repeat_interleave(8, -2)


@pytest.mark.parametrize("size", [(9, 17), (8, 8), (23, 5), (4, 30)])
def test_tiles_cover_every_position_and_blend_to_one(size: tuple[int, int]) -> None:
    model = Local(SANA)
    latent = torch.randn(2, 4, *size)
    torch.testing.assert_close(decode_tiled(model, latent, tile=64, stride=40), model.decode(latent))


def test_tiles_meet_without_a_seam() -> None:
    torch.manual_seed(3)
    model = DCAE(SANA).eval()
    latent = torch.nn.functional.interpolate(torch.randn(1, 4, 3, 3), size=(24, 24), mode="bicubic")
    with torch.no_grad():
        whole, tiled = model.decode(latent), decode_tiled(model, latent, tile=128, stride=64)
    jump = (tiled[..., 1:] - tiled[..., :-1]).abs().amax()
    assert jump <= 1.5 * (whole[..., 1:] - whole[..., :-1]).abs().amax()


@pytest.mark.parametrize(("tile", "stride"), [(60, 32), (64, 30), (64, 96), (64, 0)])
def test_tiles_that_do_not_fit_are_refused(tile: int, stride: int) -> None:
    with pytest.raises(RequestError, match="tiles of"):
        decode_tiled(DCAE(SANA), torch.randn(1, 4, 9, 9), tile=tile, stride=stride)


@pytest.mark.parametrize(
    "stages",
    [
        (Stage("res", 8, 1),),
        (Stage("res", 8, 1), Stage("evit", 10, 1)),
        (Stage("res", 8, 1), Stage("res", 12, 1)),
        (Stage("res", 2, 1), Stage("res", 6, 1)),
    ],
)
def test_contradictory_configs_are_refused(stages: tuple[Stage, ...]) -> None:
    with pytest.raises(ConfigError):
        AutoencoderConfig(latent_channels=4, head_dim=4, encoder=stages, decoder=SANA.decoder)
    with pytest.raises(ConfigError):
        AutoencoderConfig(latent_channels=4, head_dim=4, encoder=stages, decoder=stages)
