"""The model that ships: small, complete, loads in diffusers and draws the same, and draws what it is told."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import sanakit
from sanakit.autoencoder import DCAE
from sanakit.evaluation import psnr
from sanakit.pipeline import ImageRequest, Model
from sanakit.toybox import GroupSpec, Scene, SceneObject, SceneSpec, phrase, render, sample_scene
from sanakit.toybox.captions import full_spec
from sanakit.toybox.grammar import FLOORS, LIGHTS
from sanakit.weights import load_autoencoder, resolve
from tests.oracles.bounds import within
from tests.pipeline.drawing import open_diffusers, ours, theirs

FOLDER = resolve("toybox")
DEMO = "a large red metal sphere left of a small blue rubber cube on grass at sunset"
PSNR = 29.0
LIMITS = {"text_encoder": 3e6, "vae": 10e6, "transformer": 14e6}


@pytest.fixture(scope="module")
def model() -> Model:
    return sanakit.load("toybox", device="cpu", dtype="fp32")


def test_it_is_small_and_has_a_card() -> None:
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 40e6
    card = (FOLDER / "README.md").read_text()
    assert all(word in card for word in ("Data", "Recipe", "Numbers", "Limits"))


def test_the_prompts_of_the_sheet_are_those_of_the_first_unseen_scenes() -> None:
    """Chosen by seeds 0 to 11, not picked."""
    prompts = (
        (Path(__file__).parents[2] / "examples" / "prompts.txt").read_text(encoding="utf-8").splitlines()
    )
    assert prompts == [phrase(full_spec(sample_scene(seed, "held_out"))) for seed in range(12)]


def test_each_part_keeps_its_limit(model: Model) -> None:
    plain = Model(model.spec, model.precision, fast="off").parts  # packed layers have no parameters
    parts = {
        "text_encoder": plain.text.model,
        "vae": plain.autoencoder,
        "transformer": plain.transformer,
    }
    for name, part in parts.items():
        assert sum(p.numel() for p in part.parameters()) <= LIMITS[name], name


def test_diffusers_draws_the_same_picture(model: Model) -> None:
    request = ImageRequest(prompt=DEMO, steps=6, guidance=4.0, seed=1, width=256, height=256, chi=False)
    wanted = theirs(open_diffusers("SanaPipeline", Path(FOLDER)), request)
    found = ours(model, request)
    within("the shipped model, latents", found[0], wanted[0], 2e-5)
    within("the shipped model, pixels", found[1], wanted[1], 1e-4)


def test_the_autoencoder_gives_pictures_back(model: Model) -> None:
    config = model.spec.autoencoder
    autoencoder = DCAE(config).eval()
    load_autoencoder(autoencoder, config, model.spec.autoencoder_folder, dtype=torch.float32)
    originals = render([sample_scene(seed, "held_out") for seed in range(12)], 256)
    with torch.no_grad():
        decoded = autoencoder(originals * 2 - 1)
    assert psnr((decoded.clamp(-1, 1) + 1) / 2, originals).mean() >= PSNR


def test_floor_and_light_follow_the_prompt(model: Model) -> None:
    """Of all 24 pairs, a render of the pair that was asked for is the nearest in the corners free of objects."""
    item = SceneObject(shape="sphere", colour="red", material="rubber", size="small", x=0.0, z=7.0)
    pairs = [(floor, light) for floor in FLOORS for light in LIGHTS]
    references = corners(render([Scene(objects=(item,), floor=f, light=t) for f, t in pairs], 64))
    asked = [
        ("grass", "sunset"),
        ("snow", "noon"),
        ("water", "night"),
        ("sand", "overcast"),
        ("tiles", "noon"),
    ]
    hits = 0
    for seed, (floor, light) in enumerate(asked):
        text = phrase(SceneSpec(groups=(GroupSpec(shape="sphere", colour="red"),), floor=floor, light=light))
        found = corners(draw(model, text, seed))
        hits += pairs[int((references - found).abs().mean(1).argmin())] == (floor, light)
    assert hits >= len(asked) - 1


def test_colour_follows_the_prompt(model: Model) -> None:
    """A picture of a red, green or blue object has more of that colour than the same seed without it."""
    for seed, (colour, channel) in enumerate((("red", 0), ("green", 1), ("blue", 2))):
        picture = draw(model, f"a large {colour} rubber cube on snow at noon", seed)[0]
        others = [c for c in range(3) if c != channel]
        margin = picture[channel] - torch.maximum(picture[others[0]], picture[others[1]])
        assert (margin > 0.15).float().mean() > 0.03, colour


def draw(model: Model, prompt: str, seed: int) -> torch.Tensor:
    """[1, 3, 64, 64] in 0..1."""
    pixels = ours(model, ImageRequest(prompt=prompt, steps=12, seed=seed))[1]
    return torch.nn.functional.avg_pool2d(pixels.float(), pixels.shape[-1] // 64)


def corners(pictures: torch.Tensor) -> torch.Tensor:
    """[B, n]: the top corner away from sun and moon, and the bottom corners, blurred."""
    parts = (pictures[:, :, :16, 24:40], pictures[:, :, 52:, :14], pictures[:, :, 52:, 50:])
    return torch.cat([torch.nn.functional.adaptive_avg_pool2d(part, 2).flatten(1) for part in parts], dim=1)
