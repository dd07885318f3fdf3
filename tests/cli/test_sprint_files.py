"""Sprint checkpoints as files and folders: converted both ways, they draw the same picture here and in diffusers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from sanakit.pipeline import ImageRequest
from sanakit.weights import read_pth
from tests.cli.running import Sana
from tests.oracles.bounds import within
from tests.oracles.tiny import Folders, Recipe
from tests.pipeline.drawing import open_diffusers, open_model, ours, theirs, with_angles

BOUND = 1e-4
KIND = "SanaSprintPipeline"


@pytest.fixture
def sprint(tiny: Folders) -> Path:
    return tiny(Recipe(sprint=True, depth=3))


def convert(sana: Sana, *arguments: object) -> str:
    result = sana("convert", *arguments)
    assert result.exit_code == 0, result.stderr
    return str(result.stderr)


@pytest.mark.parametrize("steps", [2, 4])
@pytest.mark.parametrize("name", ["official.pth", "official.safetensors"])
def test_from_a_folder_to_official_names_and_back_the_picture_stays(
    sana: Sana, sprint: Path, tmp_path: Path, name: str, steps: int
) -> None:
    convert(sana, sprint, name)
    convert(sana, name, "again", "--parts", sprint)
    request = ImageRequest(prompt="a red cube", width=96, height=64, steps=steps, seed=3, guidance=4.5)
    angles = {2: (1.57080, 1.3), 4: (1.57080, 1.3, 1.1, 0.6)}[steps]
    first, again = (
        theirs(with_angles(open_diffusers(KIND, folder), angles), request, intermediate_timesteps=None)
        for folder in (sprint, tmp_path / "again")
    )
    found = ours(open_model(tmp_path / "again"), request)
    for part, mine, theirs_before, theirs_after in zip(
        ("latents", "pixels"), found, first, again, strict=True
    ):
        assert torch.equal(theirs_before, theirs_after)  # the weights are the same to the bit
        within(f"whole pipeline, {part}", mine, theirs_after, BOUND)


def test_a_sprint_file_has_the_official_names_and_draws_as_it_is(
    sana: Sana, sprint: Path, tmp_path: Path
) -> None:
    convert(sana, sprint, "official.pth")
    names = read_pth(tmp_path / "official.pth").keys()
    assert {"cfg_embedder.mlp.0.weight", "cfg_embedder.mlp.2.bias", "blocks.2.attn.q_norm.weight"} <= names
    assert {"blocks.0.cross_attn.k_norm.weight", "t_embedder.mlp.0.weight"} <= names
    drawing = ("a red cube", "--size", "64x64", "--device", "cpu", "--dtype", "fp32")
    for model, name in (
        (("--model", sprint), "a.png"),
        (("--model", "official.pth", "--parts", sprint), "b.png"),
    ):
        result = sana("generate", *drawing, *model, "--steps", 4, "--out", name)
        assert result.exit_code == 0, result.stderr
    with Image.open(tmp_path / "a.png") as first, Image.open(tmp_path / "b.png") as second:
        assert first.tobytes() == second.tobytes()


def test_what_weighs_the_loss_is_left_out_in_words(sana: Sana, sprint: Path, tmp_path: Path) -> None:
    convert(sana, sprint, "plain.pth")
    trained = read_pth(tmp_path / "plain.pth") | {
        "logvar_linear.weight": torch.randn(1, 16), "logvar_linear.bias": torch.randn(1),
    }  # fmt: skip
    torch.save({"state_dict": trained, "epoch": 1}, tmp_path / "trained.pth")
    words = convert(sana, "trained.pth", "model", "--like-model", sprint, "--parts", sprint)
    assert "logvar_linear.weight, logvar_linear.bias left out: it weighs the loss" in " ".join(words.split())
    assert "left out" not in convert(sana, "plain.pth", "other", "--parts", sprint)
    convert(sana, "model", "again.pth")
    again = read_pth(tmp_path / "again.pth")
    assert again.keys() == trained.keys() - {"logvar_linear.weight", "logvar_linear.bias"}
    assert all(torch.equal(again[key], trained[key]) for key in again)
