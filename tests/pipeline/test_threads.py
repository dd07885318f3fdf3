"""A model draws on the threads that its size asks for, and leaves torch's number as it was."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from sanakit.base import RequestError
from sanakit.base import threads as base
from sanakit.pipeline import ImageRequest, Model, Step, generation, load
from sanakit.pipeline.denoiser import Denoiser
from sanakit.pipeline.shapes import shapes_of
from sanakit.pipeline.threads import stage_threads
from tests.oracles.tiny import Folders

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def three(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """torch on three threads, and nobody has said anything."""
    for name in base.SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(base, "core_quota", lambda: None)
    monkeypatch.setattr(base, "available_cores", lambda: 4)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def counts(name: str, side: int, asked: int | None = None) -> dict[str, int]:
    found = stage_threads(shapes_of(name), side, side, CPU, asked)
    return {stage: threads.count for stage, threads in found.items()}


def test_the_shipped_model_denoises_on_two_threads() -> None:
    assert counts("toybox", 256) == {"text": 2, "encode": 3, "denoise": 2, "decode": 3}


@pytest.mark.parametrize("name", ["sana-0.6b-512", "sana-0.6b-1024", "sana-1.6b-1024", "sprint-0.6b-1024"])
def test_published_models_use_every_thread(name: str) -> None:
    side = shapes_of(name).transformer.sample_size * 32
    assert counts(name, side) == {"text": 3, "encode": 3, "denoise": 3, "decode": 3}


def test_what_was_asked_wins_in_every_stage() -> None:
    assert counts("toybox", 256, asked=2) == {"text": 2, "encode": 2, "denoise": 2, "decode": 2}


def test_beside_a_gpu_nothing_is_chosen() -> None:
    found = stage_threads(shapes_of("toybox"), 256, 256, torch.device("cuda"))
    assert {threads.count for threads in found.values()} == {3}


def draw(model: Model, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, set[int]], set[int]]:
    """Threads that each stage worked on, and those that the caller saw between events."""
    inside: dict[str, set[int]] = {}

    def watched(name: str) -> None:
        run = getattr(generation, name)

        def see(*arguments: object) -> object:
            inside.setdefault(name, set()).add(torch.get_num_threads())
            return run(*arguments)

        monkeypatch.setattr(generation, name, see)

    call = Denoiser.__call__

    def step(self: Denoiser, *arguments: object) -> object:
        inside.setdefault("denoise", set()).add(torch.get_num_threads())
        return call(self, *arguments)  # type: ignore[arg-type]

    watched("encode_prompt")
    watched("decode")
    monkeypatch.setattr(Denoiser, "__call__", step)
    request = ImageRequest(prompt="a red cube", steps=2, width=64, height=64)
    return inside, {torch.get_num_threads() for _ in model.generate(request)}


def test_drawing_sets_them_and_sets_them_back(tiny: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, between = draw(load(tiny(), "cpu", "fp32"), monkeypatch)
    assert inside == {"encode_prompt": {2}, "denoise": {2}, "decode": {2}}
    assert between == {3} and torch.get_num_threads() == 3


def test_drawing_on_what_was_asked(tiny: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, between = draw(load(tiny(), "cpu", "fp32", threads=2), monkeypatch)
    assert inside == {"encode_prompt": {2}, "denoise": {2}, "decode": {2}}
    assert between == {3}


def test_a_drawing_that_is_left_or_fails_leaves_no_trace(
    tiny: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(tiny(), "cpu", "fp32")
    for event in model.generate(ImageRequest(prompt="a cube", steps=2, width=64, height=64)):
        if isinstance(event, Step):
            break
    assert torch.get_num_threads() == 3
    monkeypatch.setattr(generation, "decode", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model.images(ImageRequest(prompt="a cube", steps=1, width=64, height=64))
    assert torch.get_num_threads() == 3


def test_the_same_request_has_the_same_bits_whatever_torch_is_set_to() -> None:
    """Small work: the caller's own number, which another program or machine would change, has no say."""
    model = load("toybox", "cpu", "fp32")
    request = ImageRequest(prompt="a red cube", steps=2, width=64, height=64)
    found = []
    for number in (1, 2, 3):
        torch.set_num_threads(number)
        found.append(model.images(request)[0].tobytes())
    assert found[0] == found[1] == found[2]


def test_no_threads_are_refused() -> None:
    with pytest.raises(RequestError, match="threads must be 1 or more, not -1"):
        load("toybox", threads=-1)


def test_shapes_without_layers_count_as_small() -> None:
    shapes = shapes_of("toybox")
    bare = tuple(replace(stage, depth=0) for stage in shapes.autoencoder.decoder)
    hollow = replace(shapes, autoencoder=replace(shapes.autoencoder, decoder=bare))
    assert stage_threads(hollow, 1024, 1024, CPU)["decode"].count == 2
