"""Memory estimates: exact counts of weights, growth with size, and what is free."""

from __future__ import annotations

import pytest
import torch

from sanakit import autoencoder, transformer
from sanakit.pipeline import Shapes, available_bytes, estimate, fits_together, memory
from sanakit.text import GEMMA_2_2B
from tests.oracles.tiny import Folders
from tests.pipeline.drawing import open_model

BIG = Shapes(
    transformer=transformer.PRESETS["sana-1.6b-1024"],
    autoencoder=autoencoder.PRESETS["f32c32-sana-1.1"],
    text=GEMMA_2_2B,
)


def test_parameters_of_the_published_model():
    text, denoise, decode = estimate(BIG, 1024, 1024, torch.bfloat16)
    assert (text.parameters, denoise.parameters) == (2_614_341_888, 1_604_462_752)
    assert decode.parameters == pytest.approx(159.2e6, rel=1e-3)
    assert denoise.weights == 2 * denoise.parameters


def test_parameters_of_a_loaded_model(tiny: Folders):
    model = open_model(tiny(), fast="off")
    shapes = Shapes.of(model.spec)
    modules = (model.parts.text.model, model.parts.transformer, model.parts.autoencoder)
    counted = [sum(p.numel() for p in module.parameters()) for module in modules]
    assert [stage.parameters for stage in estimate(shapes, 64, 64, torch.float32)] == counted


def test_work_grows_with_size_until_tiles_hold_it_back():
    sizes = [estimate(BIG, side, side, torch.bfloat16) for side in (512, 1024, 2048, 4096)]
    assert [stages[1].work for stages in sizes] == sorted(stages[1].work for stages in sizes)
    assert 2 * sizes[1][2].work < sizes[2][2].work < 4 * sizes[1][2].work  # bands are no larger
    assert sizes[3][2].work < sizes[2][2].work


def test_fp16_keeps_the_outer_stages_in_fp32():
    text, denoise, decode = estimate(BIG, 1024, 1024, torch.float16)
    assert text.weights == 4 * text.parameters
    assert denoise.weights == 2 * denoise.parameters
    assert decode.weights == 4 * decode.parameters


def test_fitting():
    stages = estimate(BIG, 1024, 1024, torch.bfloat16)
    assert fits_together(stages, None)
    assert fits_together(stages, 64 * 2**30)
    assert not fits_together(stages, 8 * 2**30)


def test_tiles_are_for_large_pictures_and_small_machines():
    config, fp32 = BIG.autoencoder, torch.float32
    assert not memory.needs_tiles(config, 1024, 1024, fp32, 16 * 2**30)
    assert not memory.needs_tiles(config, 2048, 2048, fp32, None)
    assert not memory.needs_tiles(config, 2048, 2048, fp32, 16 * 2**30)
    assert memory.needs_tiles(config, 2048, 2048, fp32, 6 * 2**30)
    assert memory.needs_tiles(config, 2048, 2048, fp32, 16 * 2**30, "cuda")
    assert memory.needs_tiles(config, 4096, 4096, fp32, None)


def test_what_is_free_here(monkeypatch: pytest.MonkeyPatch):
    cpu = torch.device("cpu")
    free, total = available_bytes(cpu), memory.total_bytes(cpu)
    assert free is not None and total is not None
    assert free > 2**20
    monkeypatch.setattr(memory, "free_bytes", lambda: 7)
    monkeypatch.setattr(memory, "group_limit", lambda: 1000)
    for group, process, left in ((600, None, 607), (600, 500, 507), (None, 400, 407)):
        monkeypatch.setattr(memory, "group_left", lambda group=group: group)
        monkeypatch.setattr(memory, "process_left", lambda process=process: process)
        assert (available_bytes(cpu), memory.total_bytes(cpu)) == (left, 1000)
    for name in ("group_left", "group_limit", "process_left", "_physical"):
        monkeypatch.setattr(memory, name, lambda: None)
    monkeypatch.setattr(memory, "_meminfo", lambda name: None)
    assert (available_bytes(cpu), memory.total_bytes(cpu)) == (None, None)


def test_what_decodes_in_tiles_is_estimated_so():
    whole = estimate(BIG, 2048, 2048, torch.float32, total=64 * 2**30)[2]
    tiled = estimate(BIG, 2048, 2048, torch.float32, total=6 * 2**30)[2]
    assert tiled.work < whole.work


def test_what_can_not_fit_however_wrong_the_estimate():
    stage = memory.StageMemory(stage="decode", parameters=0, weights=100, work=900)
    assert [memory.cannot_fit(stage, room) for room in (99, 799, 801, 1000)] == [True, True, False, False]
