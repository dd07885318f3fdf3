"""Tables and presets against the committed key lists of the published checkpoints: names, shapes, parameter counts."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from sanakit import autoencoder, transformer
from sanakit.autoencoder import DCAE
from sanakit.base.dialect import OFFICIAL
from sanakit.transformer import SanaTransformer
from sanakit.weights.formats import diffusers_autoencoder, diffusers_transformer, sana_pth
from sanakit.weights.rules import Table
from tests.weights.keylists import FOLDER, Shapes, diffusers_shapes, fold, read_keys
from tests.weights.published_configs import AUTOENCODERS, PARAMETERS, TRANSFORMERS

PTH = sorted(path.stem for path in FOLDER.glob("pth-*.json"))


def ours_on_meta(build: type[nn.Module], config: object) -> Shapes:
    with torch.device("meta"):
        return {key: tuple(value.shape) for key, value in build(config).state_dict().items()}


def converted(table: Table, shapes: Shapes) -> Shapes:
    """Their shapes through the table, on the meta device."""
    tensors = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    ours = table.to_ours(tensors)
    back = table.to_theirs(ours)
    assert {key: tuple(value.shape) for key, value in back.items()} == {
        key: shape for key, shape in shapes.items() if key not in table.dropped
    }
    return {key: tuple(value.shape) for key, value in ours.items()}


def count(shapes: Shapes) -> int:
    return sum(math.prod(shape) for shape in shapes.values())


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers(name: str) -> None:
    config = diffusers_transformer.from_config(TRANSFORMERS[name])
    assert config == transformer.PRESETS[name]
    theirs = read_keys(name)
    assert count(theirs) == PARAMETERS[name]
    assert converted(diffusers_transformer.table(config), theirs) == ours_on_meta(SanaTransformer, config)


@pytest.mark.parametrize("name", AUTOENCODERS)
def test_autoencoders(name: str) -> None:
    config = diffusers_autoencoder.from_config(AUTOENCODERS[name])
    assert config == autoencoder.PRESETS[name]
    theirs = read_keys(name)
    assert count(theirs) == PARAMETERS[name]
    assert converted(diffusers_autoencoder.table(config), theirs) == ours_on_meta(DCAE, config)


@pytest.mark.parametrize("name", PTH)
def test_official_checkpoints(name: str) -> None:
    preset = transformer.PRESETS[name.removeprefix("pth-")]
    theirs = read_keys(name)
    config = sana_pth.infer_config(theirs)
    assert config == preset.with_dialect(OFFICIAL)
    assert converted(sana_pth.table(config), theirs) == ours_on_meta(SanaTransformer, config)


@pytest.mark.parametrize("name", ["sana-1.6b-1024", "sprint-0.6b-1024", "f32c32-lite-1.1"])
def test_the_lists_are_those_of_the_installed_diffusers(name: str) -> None:
    from diffusers import AutoencoderDC, SanaTransformer2DModel

    if name in TRANSFORMERS:
        model: Any = SanaTransformer2DModel
        shapes = diffusers_shapes(model, TRANSFORMERS[name])
    else:
        model = AutoencoderDC
        shapes = diffusers_shapes(model, AUTOENCODERS[name])
    assert shapes == read_keys(name)


def test_folding_is_undone_by_reading(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import json

    shapes: Shapes = {f"transformer_blocks.{i}.attn1.to_out.0.bias": (8,) for i in range(12)} | {
        "x.0.weight": (1,)
    }
    (tmp_path / "list.json").write_text(json.dumps(fold(shapes)))
    monkeypatch.setattr("tests.weights.keylists.FOLDER", tmp_path)
    assert read_keys("list") == shapes
