"""A request refuses what makes no sense in one sentence, and survives JSON and A1111 text."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanakit.base.errors import RequestError
from sanakit.pipeline.parameters import read_parameters, write_parameters
from sanakit.pipeline.request import MAX_SEED, Defaults, ImageRequest

BAD = [
    ({"prompt": ""}, "prompt is empty"),
    ({"prompt": " \n\t"}, "prompt is empty"),
    ({"prompt": None}, "must be text"),
    ({"prompt": "\udce4"}, "UTF-8"),
    ({"negative": "\udce4"}, "UTF-8"),
    ({"steps": 0}, "steps"),
    ({"steps": 2.5}, "steps"),
    ({"steps": True}, "steps"),
    ({"steps": 1001}, "steps"),
    ({"seed": -1}, "seed"),
    ({"seed": MAX_SEED + 1}, "seed"),
    ({"seed": MAX_SEED, "count": 2}, "past the largest seed"),
    ({"count": 0}, "count"),
    ({"width": 100}, "multiple of 32"),
    ({"height": 0}, "height"),
    ({"height": 10**9}, "height"),
    ({"width": -32}, "width"),
    ({"guidance": float("nan")}, "guidance"),
    ({"guidance": float("inf")}, "guidance"),
    ({"guidance": -1.0}, "guidance"),
    ({"guidance": "4"}, "guidance"),
    ({"pag": float("nan")}, "pag"),
    ({"solver": "ddim"}, "unknown solver 'ddim'"),
    ({"cfg_interval": (0.9, 0.1)}, "low first"),
    ({"cfg_interval": (0.0, 2.0)}, "0..1"),
    ({"cfg_interval": (0.0,)}, "two numbers"),
    ({"pag_blocks": ()}, "at least one"),
    ({"pag_blocks": (-1,)}, "block"),
    ({"chi": "yes"}, "chi"),
    ({"truncate": 1}, "truncate"),
]


@pytest.mark.parametrize(("fields", "words"), BAD)
def test_nonsense_is_refused_in_one_sentence(fields, words):
    with pytest.raises(RequestError, match=words) as caught:
        ImageRequest(**{"prompt": "a cube", **fields})
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_open_fields_are_filled_and_given_ones_kept():
    defaults = Defaults(width=256, height=512, steps=7, guidance=3.0, solver="euler")
    request = ImageRequest(prompt="a cube", steps=3).complete(defaults)
    assert (request.steps, request.guidance, request.width, request.height) == (3, 3.0, 256, 512)
    assert request.solver == "euler"


def test_picture_k_is_seed_plus_k():
    request = ImageRequest(prompt="a cube", seed=5, count=3)
    assert [request.picture(k).seed for k in range(3)] == [5, 6, 7]
    assert request.picture(2).count == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no json",
        "[]",
        "[" * 100000,
        "{}",
        '{"prompt": "a", "sampler": 1}',
        '{"prompt": "a", "steps": "x"}',
    ],
)
def test_bad_json_is_refused(text):
    with pytest.raises(RequestError):
        ImageRequest.from_json(text)


@st.composite
def requests(draw) -> ImageRequest:
    words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=60)
    low = draw(st.floats(0, 1))
    return ImageRequest(
        prompt=draw(words.filter(lambda text: text.strip() and "Negative prompt: " not in text)),
        negative=draw(words.filter(lambda text: "\n" not in text)),
        steps=draw(st.integers(1, 1000)),
        guidance=draw(st.floats(0, 50)),
        seed=draw(st.integers(0, MAX_SEED)),
        width=draw(st.integers(1, 128)) * 32,
        height=draw(st.integers(1, 128)) * 32,
        solver=draw(st.sampled_from(["dpm1", "dpm2", "dpm3", "euler", "scm"])),
        chi=draw(st.booleans()),
        truncate=draw(st.booleans()),
        cfg_interval=(low, draw(st.floats(low, 1))),
        pag=draw(st.floats(0, 5)),
        pag_blocks=draw(st.none() | st.lists(st.integers(0, 60), min_size=1, max_size=4).map(tuple)),
    )


@given(requests())
def test_json_round_trip(request_: ImageRequest):
    assert ImageRequest.from_json(json.dumps(request_.to_json())) == request_
    assert set(request_.to_json()) == {field.name for field in dataclasses.fields(ImageRequest)}


@given(requests())
def test_parameters_round_trip(request_: ImageRequest):
    text = write_parameters(request_, {"Model": 'a "model", with: commas', "Version": "1"})
    back, others = read_parameters(text)
    assert back == request_
    assert others == {"Model": 'a "model", with: commas', "Version": "1"}


def test_parameters_look_as_viewers_expect():
    request = ImageRequest(prompt="a cube", negative="fog", steps=20, guidance=4.5, seed=7, width=512, height=256,
                           solver="dpm2")  # fmt: skip
    expected = (
        "a cube\nNegative prompt: fog\nSteps: 20, Sampler: dpm2, CFG scale: 4.5, Seed: 7, Size: 512x256"
    )
    assert write_parameters(request) == expected


@pytest.mark.parametrize(
    "text", ["", "a cube", "a\nSteps: many", "a\nSteps: 5, Size: big", "a\nSteps: 5, CFG interval: 1", "\nSteps: 5",
             "a\nSteps: 5, PAG blocks: x", "a\nSteps: 5, Sampler: DPM++ 2M", "a\nSteps: 5, CFG scale: high"]
)  # fmt: skip
def test_bad_parameters_are_refused(text):
    with pytest.raises(RequestError):
        read_parameters(text)
