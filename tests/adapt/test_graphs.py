"""Recordings: fixed memory in and out, one per shape, the same numbers. A recorder of the CPU stands in for CUDA's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sanakit.adapt.graphs import TEXT_STEP, Recorded, record
from sanakit.autoencoder import DCAE
from sanakit.autoencoder import PRESETS as AUTOENCODERS
from sanakit.base.errors import RequestError
from sanakit.base.precision import Precision
from sanakit.base.text_states import TextStates
from sanakit.pipeline.engine import choose_engine
from sanakit.transformer import SanaTransformer, TextKV, TransformerConfig


class Recorder:
    """Runs once, and at a replay again from the same memory into the same memory, as a graph does."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def __call__(self, run: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], object]]:
        out = run()
        self.recorded += 1

        def replay() -> None:
            self.replayed += 1
            out.copy_(run())

        return out, replay


def test_a_shape_is_recorded_once_and_memory_is_never_shared() -> None:
    recorder = Recorder()
    double = Recorded(lambda x, key: x * 2, recorder)
    x = torch.ones(3)
    first = double(x)
    second = double(x + 1)
    x.zero_()
    assert (first.tolist(), second.tolist()) == ([2.0] * 3, [4.0] * 3)
    assert (recorder.recorded, recorder.replayed) == (1, 2)
    double(torch.ones(4)), double(torch.ones(3, dtype=torch.float64)), double(torch.ones(3), key="other")
    assert recorder.recorded == 4


CONFIG = TransformerConfig(
    latent_channels=4, width=32, heads=4, depth=3, cross_heads=2, ffn_ratio=2.0, text_width=8, sample_size=8
)


@pytest.fixture
def model() -> SanaTransformer:
    return SanaTransformer(CONFIG).eval().requires_grad_(False)


def text_kv(model: SanaTransformer, length: int, single: bool, padded: bool = False) -> TextKV:
    mask = torch.ones(2, length, dtype=torch.bool)
    mask[:1, 1:] = not single
    found = model.precompute_text(TextStates(torch.randn(2, length, CONFIG.text_width), mask))
    return found if padded else replace(found, mask=None)


@torch.no_grad()
def test_steps_are_replayed_for_any_prompt(model: SanaTransformer) -> None:
    texts = [
        text_kv(model, 5, True),
        text_kv(model, 9, True),
        text_kv(model, TEXT_STEP, True),
        text_kv(model, 7, True, padded=True),
    ]
    inputs = [(torch.randn(2, 4, 8, 8), torch.tensor([float(100 * i)]), text) for i, text in enumerate(texts)]
    wanted = [model(*given) for given in inputs]
    recorder = Recorder()
    recorded = record(model, recorder)
    for given, want in zip(inputs, wanted, strict=True):
        torch.testing.assert_close(recorded(*given), want, rtol=1e-5, atol=1e-6)
    assert recorder.recorded == 1
    longer = text_kv(model, TEXT_STEP + 1, True)
    recorded(inputs[0][0], inputs[0][1], longer)
    assert recorder.recorded == 2


@torch.no_grad()
def test_what_a_step_depends_on_is_recorded_apart(model: SanaTransformer) -> None:
    x, time = torch.randn(2, 4, 8, 8), torch.tensor([500.0])
    several, single = text_kv(model, 5, False), text_kv(model, 5, True)
    calls = [
        {"text": several},
        {"text": single},
        {"text": several, "perturbed": {1: torch.tensor([False, True])}},
    ]
    wanted = [model(x, time, **call) for call in calls]
    recorder = Recorder()
    recorded = record(model, recorder)
    for call, want in zip(calls * 2, wanted * 2, strict=True):
        torch.testing.assert_close(recorded(x, time, **call), want, rtol=1e-5, atol=1e-6)
    assert recorder.recorded == len(calls)
    other = {
        "text": several,
        "perturbed": {1: torch.tensor([True, True])},
    }  # another sample, the same recording
    recorded(x, time, **other)
    assert recorder.recorded == len(calls)


@torch.no_grad()
def test_decoding_is_replayed() -> None:
    model = DCAE(AUTOENCODERS["toybox"]).eval()
    latents = torch.randn(3, 1, 32, 2, 3)
    wanted = [model.decode(latent) for latent in latents]
    recorder = Recorder()
    recorded = record(model, recorder)
    for latent, want in zip(latents, wanted, strict=True):
        torch.testing.assert_close(recorded.decode(latent), want)
    assert (recorder.recorded, recorder.replayed) == (1, 3)


@pytest.mark.parametrize("fast", ["graphs", "int8-graphs"])
def test_graphs_are_for_cuda(fast: str) -> None:
    with pytest.raises(
        RequestError, match=f"{fast} was asked for, but it records CUDA graphs, and this runs on cpu"
    ):
        choose_engine(fast, Precision(torch.device("cpu"), torch.bfloat16, "as asked"))


def test_on_cuda_the_engine_says_what_it_records() -> None:
    engine = choose_engine("graphs", Precision(torch.device("cuda"), torch.bfloat16, "as asked"))
    assert (engine.name, engine.graphs, engine.quantise) == ("graphs", True, None)
    assert engine.reason == "steps and decoding recorded as CUDA graphs, as asked"
