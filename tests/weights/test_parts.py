"""A model takes a part of another one, or is told why it does not fit."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from sanakit.autoencoder import DCAE
from sanakit.base import ConfigError
from sanakit.weights import (
    AUTOENCODERS,
    ModelSpec,
    read_model_spec,
    resolve,
    with_autoencoder,
    with_decoder,
    with_text_encoder,
)
from sanakit.weights.save import save_autoencoder


@pytest.fixture
def toybox() -> ModelSpec:
    return read_model_spec(resolve("toybox"))


def copy(part: Path, target: Path, **changes: object) -> Path:
    """A component's folder with other values in its config.json."""
    shutil.copytree(part, target)
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | changes))
    return target


def test_an_autoencoders_folder_takes_the_place_of_the_models(toybox: ModelSpec, tmp_path: Path) -> None:
    vae = copy(toybox.autoencoder_folder, tmp_path / "vae", scaling_factor=0.5)
    for source in (vae, tmp_path):  # the folder itself, or one that holds it as vae/
        found = with_autoencoder(toybox, source)
        assert found.autoencoder_folder == vae and found.autoencoder.scaling_factor == 0.5
        assert found.text_folder == toybox.text_folder


def test_a_text_encoder_comes_with_its_tokenizer_and_instruction(toybox: ModelSpec, tmp_path: Path) -> None:
    bare = copy(toybox.text_folder, tmp_path / "gemma", vocab_size=toybox.text_config["vocab_size"])
    for path in toybox.tokenizer_folder.iterdir():
        shutil.copy(path, bare)
    found = with_text_encoder(toybox, bare)
    assert (found.text_folder, found.tokenizer_folder, found.instruct) == (bare, bare, False)
    whole = tmp_path / "whole"
    shutil.copytree(toybox.folder, whole)
    (whole / "sanakit.json").unlink()  # a folder without it has the instruction
    found = with_text_encoder(toybox, whole)
    assert (found.text_folder, found.tokenizer_folder) == (whole / "text_encoder", whole / "tokenizer")
    assert found.instruct


def test_a_wider_text_encoder_needs_a_transformer_that_fits(toybox: ModelSpec, tmp_path: Path) -> None:
    wide = copy(toybox.text_folder, tmp_path / "text_encoder", hidden_size=320)
    shutil.copytree(toybox.tokenizer_folder, tmp_path / "tokenizer")
    with pytest.raises(ConfigError, match=r"is 320 wide, .* states of 160: say model.start=scratch"):
        with_text_encoder(toybox, tmp_path)
    found = with_text_encoder(toybox, tmp_path, widen=True)
    assert (found.text_folder, found.transformer.text_width) == (wide, 320)


def test_what_is_no_part_is_one_sentence(toybox: ModelSpec, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no autoencoder"):
        with_autoencoder(toybox, tmp_path)
    with pytest.raises(ConfigError, match="holds no text encoder"):
        with_text_encoder(toybox, tmp_path)
    copy(toybox.text_folder, tmp_path / "text_encoder")
    with pytest.raises(ConfigError, match="without its tokenizer"):
        with_text_encoder(toybox, tmp_path)
    copy(toybox.autoencoder_folder, tmp_path / "vae", latent_channels=16)
    with pytest.raises(ConfigError, match="has 16 latent channels, but the transformer .* has 32"):
        with_autoencoder(toybox, tmp_path)


def test_a_decoder_of_other_latents_is_refused_before_it_is_fetched(
    toybox: ModelSpec, tmp_path: Path
) -> None:
    def refuse(text: str) -> None:
        raise AssertionError(text)

    with pytest.raises(
        ConfigError,
        match=r"the decoder lite .* reads latents of the scale 0\.41407, those of the .* have [0-9.]+:",
    ):
        with_decoder(toybox, "lite", announce=refuse)
    narrow = replace(toybox.transformer, latent_channels=16), replace(toybox.autoencoder, latent_channels=16)
    other = replace(toybox, transformer=narrow[0], autoencoder=narrow[1])
    with pytest.raises(ConfigError, match=r"the decoder lite .* has 32 latent channels, but .* has 16"):
        with_decoder(other, "lite", announce=refuse)


def test_every_shipped_model_lends_its_decoder(toybox: ModelSpec) -> None:
    found = with_decoder(toybox, "toybox-sprint")
    assert found.autoencoder_folder == resolve("toybox-sprint") / "vae"


def test_a_decoder_of_another_ratio_is_refused(toybox: ModelSpec, tmp_path: Path) -> None:
    own = toybox.autoencoder
    coarse = replace(own, encoder=own.encoder[1:], decoder=own.decoder[1:])
    save_autoencoder(tmp_path / "vae", coarse, DCAE(coarse))
    with pytest.raises(ConfigError, match="makes 16 pixels of a latent position .* positions of 32"):
        with_decoder(toybox, tmp_path / "vae")


def test_a_folder_comes_before_a_short_name(
    toybox: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(toybox.autoencoder_folder, tmp_path / "lite")
    assert with_decoder(toybox, "lite").autoencoder_folder == Path("lite")
    assert AUTOENCODERS["lite"].config.decoder_out_act == "silu"
