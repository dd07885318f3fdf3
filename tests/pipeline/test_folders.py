"""A folder written by sanakit is a folder for diffusers: it loads there and draws the same picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sanakit.adapt.runner import unwrapped
from sanakit.autoencoder import DCAE
from sanakit.flow.scm import ANGLES
from sanakit.pipeline import ImageRequest
from sanakit.weights import load_autoencoder, write_folder
from tests.oracles.bounds import within
from tests.oracles.tiny import Folders, Recipe
from tests.pipeline.drawing import open_diffusers, open_model, ours, theirs, with_angles
from tests.weights.misaligned import data_offset, shifted_copy

REQUEST = ImageRequest(prompt="a red cube", width=96, height=64, steps=4, seed=2)
RECIPES = {
    "sana": Recipe(),
    "qk-norm": Recipe(qk_norm=True),
    "sprint": Recipe(sprint=True),
    "euler": Recipe(euler=True),
}


@pytest.mark.parametrize("name", RECIPES)
def test_written_folders_draw_the_same_in_diffusers(tiny: Folders, tmp_path: Path, name: str):
    source = open_model(tiny(RECIPES[name]), fast="off")
    found = source.spec
    autoencoder = DCAE(found.autoencoder)
    load_autoencoder(autoencoder, found.autoencoder, found.autoencoder_folder)
    folder = write_folder(
        replace(found, folder=tmp_path / "written"),
        transformer=unwrapped(source.parts.transformer),
        autoencoder=autoencoder,
        text_encoder=source.parts.text.model,
        tokenizer=found.tokenizer_folder,
        max_shard_size="20KB",
    )
    wanted = ours(source, REQUEST)
    sprint = RECIPES[name].sprint
    pipeline = open_diffusers("SanaSprintPipeline" if sprint else "SanaPipeline", folder)
    if sprint:  # its own are even ones
        pipeline = with_angles(pipeline, ANGLES[REQUEST.steps])
    options = {"intermediate_timesteps": None} if sprint else {}
    for found_ in (
        theirs(pipeline, REQUEST, **options),
        ours(open_model(folder), REQUEST),
    ):
        for part, mine, other in zip(("latents", "pixels"), found_, wanted, strict=True):
            within(f"whole pipeline, {part}", mine, other, 1e-4)
    assert torch.equal(ours(open_model(folder, fast="off"), REQUEST)[1], wanted[1])


@pytest.mark.parametrize("fast", ["off", "auto"])
@pytest.mark.parametrize("offset", [8, 40])
def test_where_a_file_lays_its_tensors_changes_no_bit(
    tiny: Folders, tmp_path: Path, fast: str, offset: int
) -> None:
    """Products sum in an order that depends on the address: the same weights draw the same bits all the same."""
    folder = tiny(RECIPES["qk-norm"])
    drawn = []
    for place in (0, offset):
        moved = shifted_copy(folder, tmp_path / str(place), place)
        assert {data_offset(path) for path in moved.rglob("*.safetensors")} == {place}
        drawn.append(ours(open_model(moved, fast=fast), REQUEST))
    for mine, other in zip(*drawn, strict=True):
        assert torch.equal(mine, other)
