"""Pictures drawn in one forward pass are those drawn alone, whatever steps, settings and company they have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sanakit.adapt.runner import unwrapped
from sanakit.base.errors import NumericsError
from sanakit.pipeline import ImageRequest, Model, encode_prompt, make_plan
from sanakit.pipeline.batching import BatchedDenoiser, DenoiserInput, join_texts
from sanakit.pipeline.canvas import to_drawn
from sanakit.pipeline.control import Control, ControlFile
from sanakit.pipeline.denoiser import Drawing, begin, plan_denoisers, precompute_text
from sanakit.pipeline.encoder import encode
from sanakit.pipeline.inputs import InputImage
from sanakit.pipeline.steering import LoadedControl, control_pixels
from tests.oracles.bounds import within
from tests.oracles.tiny import Folders, Recipe
from tests.pipeline.drawing import CPU, open_model
from tests.pipeline.test_control import Nets
from tests.pipeline.test_edit import box_mask, picture

BOUND = 1e-5
"""Largest difference from the latent drawn alone, over its largest value; stated in pipeline/batching.py."""

SIZE = {"width": 96, "height": 64}
MIXED: dict[str, dict[str, Any]] = {
    "plain": {},
    "other words and steps": {
        "prompt": "two green cones on grass, at night and in fog",
        "steps": 5,
        "seed": 9,
    },
    "no guidance": {"guidance": 1.0, "solver": "euler"},
    "negative prompt": {"negative": "blue rubber", "guidance": 7.0, "solver": "dpm3", "steps": 4},
    "an interval": {"cfg_interval": (0.3, 0.8), "steps": 6},
    "perturbed": {"pag": 2.0},
    "perturbed elsewhere": {"pag": 1.5, "pag_blocks": (0,), "guidance": 1.0},
    "regions": {"regions": ("0,0,0.5,1:a yellow cube",)},
}


@pytest.fixture(scope="module")
def model(tiny: Folders) -> Model:
    return open_model(tiny(Recipe(sample_size=2)))


def ask(**fields: Any) -> ImageRequest:
    return ImageRequest(**{"prompt": "a red sphere", "steps": 3, "guidance": 4.5, **SIZE, **fields})


def drawing(model: Model, request: ImageRequest) -> Drawing:
    """A request before its first step, with whatever it needs."""
    plan = make_plan(model.spec, request)
    prompt = encode_prompt(model.parts.text, model.spec, plan)
    source = None
    if plan.edit is not None:
        source = encode(model.parts.encoder, to_drawn(plan.edit.canvas, plan.edit.source))
    loaded = [
        LoadedControl(
            planned=each, network=model.parts.control(each.spec),
            latent=encode(model.parts.encoder, control_pixels(each.control, plan.drawn)),
        )
        for each in plan.controls
    ]  # fmt: skip
    denoisers = plan_denoisers(model.parts.transformer, prompt, plan, loaded)
    return begin(denoisers, plan, request.seed, CPU, source)


def alone(model: Model, request: ImageRequest) -> Tensor:
    """The latent of a request by itself."""
    one, latent = drawing(model, request), torch.empty(0)
    while not one.finished:
        state = one.advance()
        latent = latent if state is None else state.x
    return latent


def together(model: Model, requests: list[ImageRequest]) -> list[Tensor]:
    """The latents of requests that join one after the other, so that no two are ever at the same step."""
    company = BatchedDenoiser(model.parts.transformer)
    drawings = [drawing(model, request) for request in requests]
    latents = [torch.empty(0)] * len(drawings)
    for turn in range(100):
        present = [n for n, each in enumerate(drawings) if n <= turn and not each.finished]
        if not present:
            break
        inputs = [(n, each) for n in present for each in drawings[n].inputs()]
        velocities = company.predict([each for _, each in inputs])
        for n in present:
            own = [found for (owner, _), found in zip(inputs, velocities, strict=True) if owner == n]
            state = drawings[n].answer(own)
            latents[n] = latents[n] if state is None else state.x
    assert all(each.finished for each in drawings)
    return latents


def test_a_mixed_company_draws_what_each_draws_alone(model: Model) -> None:
    requests = [ask(**changes) for changes in MIXED.values()]
    for name, found, request in zip(MIXED, together(model, requests), requests, strict=True):
        within(f"in a batch: {name}", found, alone(model, request), BOUND)


def test_edits_join_pictures_and_each_other(model: Model) -> None:
    source = picture(96, 64)
    edits: list[dict[str, Any]] = [
        {"strength": 0.7, "steps": 4},
        {"mask": box_mask(96, 64, (0, 0, 40, 63)), "seed": 3},
        {"source_prompt": "two green cones", "averages": 2, "strength": 1.0},
        {"source_prompt": "two green cones", "how": "inversion", "strength": 1.0},
    ]
    plain = {"prompt": "a cube", **SIZE}
    requests = [ask(), *(ImageRequest(**{**plain, "steps": 3, "source": source, **each}) for each in edits)]
    assert len({make_plan(model.spec, each).latent_shape for each in requests}) == 1
    for found, request in zip(together(model, requests), requests, strict=True):
        within("in a batch: an edit", found, alone(model, request), BOUND)


def test_steered_pictures_join_others(tiny: Folders, tmp_path: Path) -> None:
    folder, net = Nets(tmp_path, tiny)("sana")
    model, image = open_model(folder), InputImage.of(picture(96, 64))
    control = Control(network=ControlFile.take(net), picture=image, scale=0.7, end=0.6)
    requests = [
        ask(controls=(control,), steps=4),
        ask(seed=5),
        ask(controls=(control,), seed=6, guidance=1.0),
    ]
    for found, request in zip(together(model, requests), requests, strict=True):
        within("in a batch: a steered picture", found, alone(model, request), BOUND)
    assert float((alone(model, requests[0]) - alone(model, ask(steps=4))).abs().max()) > 1e-3


def test_networks_that_read_the_guidance_scale_read_each_pictures_own(tiny: Folders) -> None:
    model = open_model(tiny(Recipe(sprint=True, sample_size=2)))
    requests = [ask(steps=2, guidance=2.0), ask(steps=4, guidance=6.0, seed=1), ask(steps=1, guidance=4.5)]
    for found, request in zip(together(model, requests), requests, strict=True):
        within("in a batch: few steps", found, alone(model, request), BOUND)


def test_one_picture_is_the_same_to_the_bit(model: Model) -> None:
    request = ask(cfg_interval=(0.3, 0.8), pag=1.0)
    assert torch.equal(together(model, [request])[0], alone(model, request))


def test_company_matters_to_nobody_but_in_the_last_bits(model: Model) -> None:
    """The bound is not slack: another seed in the same place moves the latent by ten thousand times as much."""
    one, other = ask(seed=1), ask(seed=2)
    mixed = together(model, [one, other, ask(seed=3)])
    assert float((mixed[0] - alone(model, other)).abs().max()) > 1e4 * BOUND
    within("in a batch: three seeds", mixed[1], alone(model, other), BOUND)


def test_a_picture_that_breaks_spoils_no_other(model: Model) -> None:
    good, bad = drawing(model, ask()), drawing(model, ask(seed=4))
    broken = [
        DenoiserInput(plan=each.plan, branches=each.branches, text_kv=each.text_kv, x=each.x * float("nan"),
                      sigma=each.sigma, step=each.step)
        for each in bad.inputs()
    ]  # fmt: skip
    company = BatchedDenoiser(model.parts.transformer)
    velocities = company.predict([*good.inputs(), *broken])
    assert torch.isfinite(velocities[0]).all() and not torch.isfinite(velocities[1]).any()
    bad.answer([velocities[1]])
    with pytest.raises(NumericsError, match="denoise step 2"):
        bad.advance()


def test_a_joined_text_is_made_once_for_a_batch_that_stays(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    joins: list[int] = []

    def counted(texts: list[Any], *rest: Any) -> Any:
        joins.append(len(texts))
        return join_texts(texts, *rest)

    monkeypatch.setattr("sanakit.pipeline.batching.join_texts", counted)
    together(model, [ask(steps=6), ask(steps=6, prompt="two green cones")])
    assert joins == [1, 2, 1]  # alone, both for five steps, alone


def test_texts_of_other_lengths_are_joined_as_they_are(model: Model) -> None:
    """Every sample keeps its own keys, its mask and its constant, whatever stands beside it."""
    texts = []
    for words, negative in (("a red sphere", ""), ("two green cones on grass at night", "blue"), ("", "")):
        plan = make_plan(model.spec, ask(prompt=words, negative=negative))
        prompt = encode_prompt(model.parts.text, model.spec, plan)
        texts.append(precompute_text(model.parts.transformer, prompt, ("uncond", "cond")))
    joined = join_texts(texts, [2, 2, 2], tokens=6)
    x = torch.randn(6, 6, 16)
    cross: Any = unwrapped(model.parts.transformer).blocks[1].cross
    with torch.no_grad():
        apart = [cross(x[2 * n : 2 * n + 2], text.blocks[1], text.mask) for n, text in enumerate(texts)]
        within("joined texts", cross(x, joined.blocks[1], joined.mask), torch.cat(apart), BOUND)
