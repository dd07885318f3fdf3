"""DC-AE with its authors' names: key lists, diffusers as judge, and files there and back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sanakit.autoencoder import DCAE, PRESETS, AutoencoderConfig, Stage
from sanakit.base.errors import ConfigError, RequestError, WeightsError
from sanakit.weights import (
    Hints,
    file_to_file,
    file_to_folder,
    folder_to_file,
    open_checkpoint,
    save_autoencoder,
)
from sanakit.weights.formats import dcae_pth, diffusers_autoencoder
from tests.weights.keylists import read_keys

CONFIGS = {
    "sana": AutoencoderConfig(
        latent_channels=4, head_dim=8, scaling_factor=0.41407,
        encoder=(Stage("res", 8, 2), Stage("res", 8, 1), Stage("evit", 16, 1, (5,))),
        decoder=(Stage("res", 8, 1), Stage("res", 8, 1), Stage("evit", 16, 2, (5,))),
    ),
    "mix": AutoencoderConfig(
        latent_channels=4, head_dim=32, downsample="unshuffle", upsample="shuffle",
        encoder=(Stage("res", 32, 0), Stage("res", 32, 2), Stage("evit", 64, 1)),
        decoder=(Stage("res", 32, 0), Stage("res", 32, 1), Stage("evit", 64, 1)),
    ),
    "lite": AutoencoderConfig(
        latent_channels=4, head_dim=8, upsample="shuffle", decoder_out_act="silu",
        encoder=(Stage("res", 8, 1), Stage("evit", 16, 1, (5,))), decoder=(Stage("res", 16, 0), Stage("res", 16, 1)),
    ),
    "no shortcuts": AutoencoderConfig(
        latent_channels=4, encoder_shortcut=False, decoder_shortcut=False,
        encoder=(Stage("res", 8, 1), Stage("res", 8, 1)), decoder=(Stage("res", 8, 1), Stage("res", 8, 1)),
    ),
}  # fmt: skip


def authors(config: AutoencoderConfig) -> dict[str, Tensor]:
    """A random checkpoint with the authors' names."""
    model = DCAE(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return dcae_pth.table(config).to_theirs(model.state_dict())


@pytest.mark.parametrize("name", ["sana-1.1", "lite-1.1"])
def test_the_published_key_lists(name: str) -> None:
    """Written down from the authors' modules, not from the table."""
    with torch.device("meta"):
        config = PRESETS[f"f32c32-{name}"]
        ours = DCAE(config).state_dict()
    theirs = {key: tuple(value.shape) for key, value in dcae_pth.table(config).to_theirs(ours).items()}
    assert theirs == read_keys(f"dcae-{name}")
    assert dcae_pth.infer_config(theirs) == config
    back = dcae_pth.table(config).to_ours(
        {key: torch.empty(shape, device="meta") for key, shape in theirs.items()}
    )
    assert {key: value.shape for key, value in back.items()} == {
        key: value.shape for key, value in ours.items()
    }


@pytest.mark.parametrize("name", ["sana", "mix"])
def test_names_are_those_that_diffusers_converts(name: str) -> None:
    from diffusers import AutoencoderDC
    from diffusers.loaders.single_file_utils import convert_autoencoder_dc_checkpoint_to_diffusers

    config, state = CONFIGS[name], authors(CONFIGS[name])
    converted = convert_autoencoder_dc_checkpoint_to_diffusers(dict(state))
    fields = {k: v for k, v in diffusers_autoencoder.to_config(config).items() if not k.startswith("_")}
    judge = AutoencoderDC(**fields).eval()
    judge.load_state_dict(converted, strict=True)
    ours = DCAE(config).eval()
    ours.load_state_dict(dcae_pth.table(config).to_ours(state))
    pixels = torch.randn(1, 3, 16, 24)
    with torch.no_grad():
        latent = judge.encode(pixels).latent
        torch.testing.assert_close(ours.encode(pixels), latent, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours.decode(latent), judge.decode(latent).sample, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", CONFIGS)
def test_folder_to_file_to_folder_is_bit_equal(tmp_path: Path, name: str, suffix: str) -> None:
    config, path = CONFIGS[name], tmp_path / f"x{suffix}"
    save_autoencoder(tmp_path / "vae", config, DCAE(config))
    assert folder_to_file(tmp_path / "vae", path, dtype=None, variant=None, force=False) == config
    notes: list[str] = []
    common = {"hints": Hints(), "announce": notes.append, "force": False}
    assert file_to_file(path, tmp_path / "y.pth", dtype=None, **common) == config
    assert file_to_folder(tmp_path / "y.pth", tmp_path / "back", parts=None, **common) == config
    for file in ("config.json", "diffusion_pytorch_model.safetensors"):
        assert (tmp_path / "vae" / file).read_bytes() == (tmp_path / "back" / file).read_bytes()
    assert notes == []


def test_an_autoencoder_that_no_tensor_describes(tmp_path: Path) -> None:
    config, path = CONFIGS["sana"], tmp_path / "x.pth"
    torch.save({"state_dict": authors(config)}, path)

    def convert(**hints: object) -> object:
        given = Hints(**hints)  # type: ignore[arg-type]
        return file_to_folder(path, tmp_path / "vae", hints=given, announce=print, parts=None, force=True)

    with pytest.raises(ConfigError, match="no published autoencoder.*give --config FILE"):
        convert()
    with pytest.raises(RequestError, match="by --config FILE alone"):
        convert(like_model="sana-1.6b-4k")
    description = tmp_path / "config.json"
    description.write_text(json.dumps(diffusers_autoencoder.to_config(config)))
    assert convert(config=description) == config
    assert convert(config=tmp_path / "vae") == config
    other = replace(config, encoder=(*config.encoder[:2], Stage("evit", 16, 2, (5,))))
    description.write_text(json.dumps(diffusers_autoencoder.to_config(other)))
    with pytest.raises(ConfigError, match="its stages are not those of the tensors"):
        convert(config=description)


def test_files_that_are_almost_a_dcae(tmp_path: Path) -> None:
    state = authors(CONFIGS["sana"])
    for key in ("decoder.project_in.main.conv.weight", "encoder.stages.1.op_list.0.main.conv1.conv.weight"):
        torch.save({name: value for name, value in state.items() if name != key}, tmp_path / "x.pth")
        with pytest.raises((WeightsError, ConfigError)):
            dcae_pth.infer_config(open_checkpoint(tmp_path / "x.pth").shapes, "x.pth")
    for odd in (
        {"encoder.project_in.conv.weight": (1,)},
        {"encoder.stages.99.op_list.0.main.conv1.conv.weight": ()},
    ):
        with pytest.raises(WeightsError, match="isn't a DC-AE"):
            dcae_pth.infer_config(odd)
