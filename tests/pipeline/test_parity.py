"""The whole pipeline against diffusers: same folder, same seed, float32, at most 1e-4 relative.

Reached on a CPU: about 1e-6 for latents and pixels.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from sanakit.pipeline import ImageRequest
from tests.oracles.bounds import within
from tests.oracles.tiny import Folders, Recipe
from tests.pipeline.drawing import open_diffusers, open_model, ours, theirs, with_angles

BOUND = 1e-4
PROMPT = "A large RED sphere left of a small blue cube"


def check(folder: Path, request: ImageRequest, kind: str = "SanaPipeline", **options: object) -> None:
    wanted = theirs(open_diffusers(kind, folder), request, **options)
    found = ours(open_model(folder), request)
    for part, mine, other in zip(("latents", "pixels"), found, wanted, strict=True):
        within(f"whole pipeline, {part}", mine, other, BOUND)


def ask(**fields: object) -> ImageRequest:
    return ImageRequest(**{"prompt": PROMPT, "width": 96, "height": 64, "steps": 5, "seed": 3, **fields})


@pytest.mark.parametrize("steps", [1, 2, 5, 20])
@pytest.mark.parametrize("chi", [True, False])
def test_guided_pictures(tiny: Folders, steps: int, chi: bool):
    check(tiny(), ask(steps=steps, chi=chi, negative="fog", guidance=4.5))


RECIPES = {
    "qk-norm": Recipe(qk_norm=True, seed=1),
    "wide": Recipe(width=64, heads=4, cross_heads=2, depth=3, seed=2),
    "positions": Recipe(position_scale=2.0, sample_size=4, seed=3),
    "lite decoder": Recipe(lite=True, seed=4),
    "shift 6": Recipe(flow_shift=6.0, seed=5),
    "order 1": Recipe(solver_order=1, seed=6),
    "order 3": Recipe(solver_order=3, seed=7),
    "euler": Recipe(euler=True, seed=8),
}


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("size", [(64, 64), (160, 32)], ids=str)
def test_kinds_of_models(tiny: Folders, name: str, size: tuple[int, int]):
    check(tiny(RECIPES[name]), ask(width=size[0], height=size[1], guidance=3.0))


@pytest.mark.parametrize("chi", [True, False])
@pytest.mark.parametrize("guidance", [4.5, 1.0])
def test_an_empty_prompt(tiny: Folders, chi: bool, guidance: float):
    check(tiny(), ask(prompt="", chi=chi, guidance=guidance, steps=2))


@pytest.mark.parametrize(
    "fields",
    [{"lower_order_final": False}, {"euler_at_final": True, "final_sigmas_type": "sigma_min"},
     {"lower_order_final": False, "final_sigmas_type": "sigma_min"}],
    ids=str,
)  # fmt: skip
def test_endings_of_a_schedule(tiny: Folders, tmp_path: Path, fields: dict[str, object]):
    folder = tmp_path / "model"
    shutil.copytree(tiny(Recipe(solver_order=3, seed=7)), folder)
    path = folder / "scheduler/scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    check(folder, ask(guidance=3.0, steps=5))


def test_without_guidance(tiny: Folders):
    check(tiny(), ask(guidance=1.0))


def test_what_is_left_open_is_the_same(tiny: Folders):
    folder = tiny(Recipe(sample_size=2))
    check(folder, ImageRequest(prompt=PROMPT, width=64, height=64))


@pytest.mark.parametrize("size", [(512, 512), (480, 288), (256, 704)], ids=str)
def test_sizes_from_buckets(tiny: Folders, size: tuple[int, int]):
    folder = tiny(Recipe(sample_size=16), bins=True)
    check(folder, ask(width=size[0], height=size[1], steps=2), bins=True)


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("guidance", [4.5, 1.0])
def test_sprint_at_the_angles_that_diffusers_has(tiny: Folders, steps: int, guidance: float):
    options = {} if steps == 2 else {"intermediate_timesteps": None}
    check(tiny(Recipe(sprint=True)), ask(steps=steps, guidance=guidance), "SanaSprintPipeline", **options)


def test_sprint_at_the_even_angles_of_diffusers_for_four_steps(tiny: Folders):
    even = tuple(torch.linspace(1.57080, 0, 5)[:-1].tolist())
    folder, request = tiny(Recipe(sprint=True)), ask(steps=None, angles=even)
    wanted = theirs(
        open_diffusers("SanaSprintPipeline", folder), request.replace(steps=4), intermediate_timesteps=None
    )
    within("Sprint, even angles", ours(open_model(folder), request)[0], wanted[0], BOUND)


@pytest.mark.parametrize(
    ("fields", "angles"),
    [({"steps": 3}, (1.57080, 1.3, 0.8)), ({"steps": 4}, (1.57080, 1.3, 1.1, 0.6)),
     ({"steps": None, "angles": (1.5, 0.7)}, (1.5, 0.7))],
    ids=str,
)  # fmt: skip
def test_sprint_at_angles_that_diffusers_is_given(
    tiny: Folders, fields: dict[str, Any], angles: tuple[float, ...]
):
    folder = tiny(Recipe(sprint=True))
    pipeline = with_angles(open_diffusers("SanaSprintPipeline", folder), angles)
    wanted = theirs(pipeline, ask(steps=len(angles)), intermediate_timesteps=None)
    found = ours(open_model(folder), ask(**fields))
    for part, mine, other in zip(("latents", "pixels"), found, wanted, strict=True):
        within(f"whole pipeline, {part}", mine, other, BOUND)


@pytest.mark.parametrize("guidance", [4.5, 1.0])
def test_perturbed_attention(tiny: Folders, guidance: float):
    request = ask(guidance=guidance, pag=2.0, pag_blocks=(0,))
    check(tiny(Recipe(pag=True)), request, "SanaPAGPipeline", pag_scale=2.0)


def test_the_block_that_is_perturbed_where_none_is_named(tiny: Folders):
    check(tiny(Recipe(pag=True, depth=3)), ask(pag=2.0), "SanaPAGPipeline", pag_scale=2.0)


def test_long_prompts_are_cut_at_the_same_token(tiny: Folders):
    check(tiny(), ask(prompt="sphere cone cube " * 200, steps=2))
