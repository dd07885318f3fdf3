"""The lite decoder begins with what it shares with the shipped one, costs half, and reads Toybox's latents."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from recipes.toybox_lite import fresh_lite
from recipes.toybox_second import shipped_autoencoder
from sanakit.autoencoder import DCAE, PRESETS, AutoencoderConfig
from sanakit.weights import read_model_spec, resolve, save_autoencoder, with_decoder


@pytest.fixture(scope="module")
def fresh() -> tuple[DCAE, AutoencoderConfig]:
    return fresh_lite()


def test_it_begins_with_the_encoder_and_the_coarse_stages_that_there_are(
    fresh: tuple[DCAE, AutoencoderConfig],
) -> None:
    lite, full = fresh[0].state_dict(), shipped_autoencoder()[0].state_dict()
    kept = {name for name, value in lite.items() if name in full and torch.equal(value, full[name])}
    assert {name for name in lite if name.startswith("encoder.")} <= kept
    assert {name for name in lite if name.startswith("decoder.stages.5.")} <= kept
    assert not any(name.startswith("decoder.stages.2.blocks") for name in kept)


def test_a_picture_takes_less_than_half_the_operations(fresh: tuple[DCAE, AutoencoderConfig]) -> None:
    def operations(config: AutoencoderConfig) -> int:
        with FlopCounterMode(display=False) as counter, torch.device("meta"), torch.no_grad():
            DCAE(config).decode(torch.empty(1, 32, 8, 8))
        return counter.get_total_flops()

    assert operations(fresh[1]) < operations(PRESETS["toybox"]) / 2


def test_the_model_takes_it_as_its_decoder(fresh: tuple[DCAE, AutoencoderConfig], tmp_path: Path) -> None:
    lite, config = fresh
    save_autoencoder(tmp_path, config, lite, dtype=torch.bfloat16)
    toybox = read_model_spec(resolve("toybox"))
    found = with_decoder(toybox, tmp_path)
    assert found.autoencoder.decoder == config.decoder
    assert found.autoencoder.scaling_factor == toybox.autoencoder.scaling_factor
