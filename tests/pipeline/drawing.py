"""The same request drawn by diffusers and by sanakit, as float latents and pixels."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sanakit.pipeline import ImageRequest, Model, decode, denoise, encode_prompt, load, make_plan

CPU = torch.device("cpu")


def open_model(folder: Path, dtype: str = "fp32", fast: str | None = None) -> Model:
    return load(folder, "cpu", dtype, fast=fast)


def ours(model: Model, request: ImageRequest) -> tuple[Tensor, Tensor]:
    """Latent [1, C, h, w] and pixels [1, 3, H, W] in 0..1 of a request."""
    plan = make_plan(model.spec, request)
    prompt = encode_prompt(model.parts.text, model.spec, plan)
    states = list(denoise(model.parts.transformer, prompt, plan, request.seed, CPU))
    pixels = decode(model.parts.autoencoder, states[-1].x, plan.size)
    return states[-1].x, (pixels * 0.5 + 0.5).clamp(0, 1)


def open_diffusers(kind: str, folder: Path) -> Any:
    import diffusers

    # Without a dtype, transformers keeps that of the file for the text encoder.
    pipeline = getattr(diffusers, kind).from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def theirs(
    pipeline: Any, request: ImageRequest, *, bins: bool = False, **options: Any
) -> tuple[Tensor, Tensor]:
    """As `ours`, by a diffusers pipeline; open fields of the request take the pipeline's own defaults."""
    arguments: dict[str, Any] = {
        "prompt": request.prompt,
        "height": request.height,
        "width": request.width,
        "use_resolution_binning": bins,
    }
    if request.steps is not None:
        arguments["num_inference_steps"] = request.steps
    if request.guidance is not None:
        arguments["guidance_scale"] = request.guidance
    if request.negative:
        arguments["negative_prompt"] = request.negative
    if not request.chi:
        arguments["complex_human_instruction"] = None
    arguments |= options
    with warnings.catch_warnings():  # its schedulers use numpy in a way that numpy 2 deprecates
        warnings.simplefilter("ignore", DeprecationWarning)
        latent = pipeline(**arguments, generator=_generator(request), output_type="latent").images
        pixels = pipeline(**arguments, generator=_generator(request), output_type="np").images
    return latent, torch.from_numpy(pixels).permute(0, 3, 1, 2)


def _generator(request: ImageRequest) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(request.seed)


def with_angles(pipeline: Any, angles: tuple[float, ...]) -> Any:
    """A Sprint pipeline that always begins its steps at these angles; its own argument for them raises TypeError."""
    import diffusers

    class Angles(diffusers.SCMScheduler):  # type: ignore[misc]
        def set_timesteps(self, steps: int, **others: Any) -> None:
            super().set_timesteps(
                steps, timesteps=[*angles, 0.0], max_timesteps=None, intermediate_timesteps=None
            )

    pipeline.scheduler = Angles.from_config(pipeline.scheduler.config)
    return pipeline


def relative(found: Tensor, wanted: Tensor) -> float:
    """Largest difference over the largest value."""
    assert found.shape == wanted.shape
    return float((found - wanted).abs().max() / wanted.abs().max())
