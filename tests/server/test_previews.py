"""Previews show the picture: the fitted map gives colours back, is kept, and is made again if its file is broken."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image

from sanakit.server.engine.models import Models
from sanakit.server.engine.previews import Previews, apply_map, fit_map, read_map, synthetic_pictures, to_jpeg
from sanakit.server.engine.stages import Stages
from sanakit.toybox import render, sample_scene
from tests.pipeline.drawing import open_model
from tests.server.engines import ask


def test_a_linear_encoder_is_undone_exactly() -> None:
    """Latents that are an invertible linear map of colours, beside channels of noise."""
    pixels = synthetic_pictures()
    colours = F.adaptive_avg_pool2d(pixels, (8, 8))
    mixed = torch.einsum("dc,bchw->bdhw", torch.randn(3, 3), colours) + 0.3
    latents = torch.cat([mixed, torch.randn(len(pixels), 2, 8, 8)], dim=1)
    found = apply_map(fit_map(latents, pixels), latents[:1])
    assert float((found - colours[:1]).abs().max()) < 0.02


def test_previews_of_the_shipped_model_look_like_its_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = open_model("toybox")  # type: ignore[arg-type]
    stages = Stages(Models({"toybox": model}), prompts=4, threads=1, keep=set)
    prepared = stages.prepare("toybox", model, ask())
    pixels = render([sample_scene(103)], 256, samples=1) * 2 - 1
    latent = stages.encode(prepared, pixels)
    jpeg = Previews(tmp_path, stages).jpeg(prepared, latent)
    seen = Image.open(io.BytesIO(jpeg)).convert("RGB").resize((8, 8), Image.Resampling.BOX)
    found = torch.from_numpy(np.asarray(seen).astype(np.float32)) / 127.5 - 1
    wanted = F.adaptive_avg_pool2d(pixels, (8, 8))[0].permute(1, 2, 0)
    spread = float((wanted - wanted.mean(dim=(0, 1))).square().mean())
    assert float((found - wanted).square().mean()) < 0.2 * spread

    def never(*given: Any) -> Any:
        raise AssertionError("the map is on disk")

    monkeypatch.setattr(stages, "encode", never)
    assert Previews(tmp_path, stages).jpeg(prepared, latent) == jpeg
    monkeypatch.undo()
    (place,) = tmp_path.glob("*.json")
    for broken in ("{", '{"map": [[1, 2]]}', '{"map": [[1, 2, "x"]]}', "[]", '{"map": [[1, 2, NaN]]}'):
        place.write_text(broken)
        assert read_map(place) is None


def test_previews_have_the_shape_of_the_picture() -> None:
    for height, width, size in (
        (2, 4, (256, 128)),
        (5, 3, (154, 256)),
        (1, 64, (256, 4)),
        (64, 64, (256, 256)),
    ):
        assert Image.open(io.BytesIO(to_jpeg(torch.zeros(1, 3, height, width)))).size == size
