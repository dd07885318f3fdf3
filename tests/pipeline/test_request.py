"""A request refuses what makes no sense in one sentence, and survives JSON and A1111 text."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanakit.base.errors import RequestError
from sanakit.pipeline.parameters import parse_parameters, write_parameters
from sanakit.pipeline.request import MAX_SEED, Defaults, ImageRequest, request_fields

BAD = [
    ({"guidance": 1e308}, "guidance must be a number from 0 to 1000"),
    ({"guidance": 10**400}, "guidance"),
    ({"guidance": float("inf")}, "guidance"),
    ({"pag": 1e9}, "pag must be"),
    ({"steps": 10**5000}, "a number of 16610 bits"),
    ({"bins": 1}, "bins must be true or false"),
    ({"solver": "x" * 10**6}, "unknown solver"),
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
    ({"angles": ()}, "1 to 1000 numbers"),
    ({"angles": (1.5708, "1")}, "1 to 1000 numbers"),
    ({"angles": (float("nan"),)}, "1 to 1000 numbers"),
    ({"angles": (1.6,)}, "fall from at most 1.5708"),
    ({"angles": (1.5, 1.5)}, "fall from"),
    ({"angles": (1.5, 0.0)}, "above 0, not '1.5,0'"),
    ({"angles": (1.5708, 1.3), "steps": 4}, "angles gives 2 steps and steps asks for 4"),
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
    assert not str(caught.value).endswith(".")


def test_open_fields_are_filled_and_given_ones_kept():
    defaults = Defaults(width=256, height=512, steps=7, guidance=3.0, solver="euler")
    request = ImageRequest(prompt="a cube", steps=3).complete(defaults)
    assert (request.steps, request.guidance, request.width, request.height) == (3, 3.0, 256, 512)
    assert request.solver == "euler"


def test_angles_decide_the_steps_and_new_ones_replace_old_ones():
    request = ImageRequest(prompt="a cube", angles=(1.5708, 1.0)).complete(
        Defaults(width=64, height=64, steps=7)
    )
    assert request.steps == 2
    assert request.replace(angles=(1.5708, 1.0, 0.5)).steps is None
    assert (request.replace(steps=4).angles, request.replace(seed=1).angles) == (None, (1.5708, 1.0))


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
    falling = st.sets(st.floats(1e-3, 1.57), min_size=1, max_size=4)
    angles = draw(st.none() | falling.map(lambda some: tuple(sorted(some, reverse=True))))
    return ImageRequest(
        prompt=draw(words | st.just("a\nNegative prompt: b\nSteps: 3")),
        negative=draw(words.filter(lambda text: "\n" not in text)),
        steps=draw(st.integers(1, 1000)) if angles is None else len(angles),
        angles=angles,
        guidance=draw(st.floats(0, 50)),
        seed=draw(st.integers(0, MAX_SEED)),
        width=draw(st.integers(1, 128)) * 32,
        height=draw(st.integers(1, 128)) * 32,
        solver=draw(st.sampled_from(["dpm1", "dpm2", "dpm3", "euler", "scm"])),
        chi=draw(st.booleans()),
        truncate=draw(st.booleans()),
        bins=draw(st.booleans()),
        cfg_interval=(low, draw(st.floats(low, 1))),
        pag=draw(st.floats(0, 5)),
        pag_blocks=draw(st.none() | st.lists(st.integers(0, 60), min_size=1, max_size=4).map(tuple)),
    )


@given(requests())
def test_json_round_trip(request_: ImageRequest):
    assert ImageRequest.from_json(json.dumps(request_.to_json())) == request_
    left_out = {
        one.name for one in request_fields() if one.later and getattr(request_, one.name) == one.default
    }
    assert set(request_.to_json()) == {one.name for one in request_fields()} - left_out


@given(requests())
def test_parameters_round_trip(request_: ImageRequest):
    text = write_parameters(request_, {"Model": 'a "model", with: commas', "Version": "1"})
    found = parse_parameters(text)
    back, others = found.request, found.extra
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
    "text", ["", "a cube", "a\nSteps: many", "a\nSteps: 5, Size: big", "a\nSteps: 5, CFG interval: 1",
             "a\nSteps: 5, PAG blocks: x",
             "a\nSteps: 2, Angles: 1.5 x", "a\nSteps: 3, Angles: 1.5 1.3", "a\nSteps: 5, CFG scale: high"]
)  # fmt: skip
def test_bad_parameters_are_refused(text):
    with pytest.raises(RequestError):
        parse_parameters(text)


def test_an_empty_prompt_is_one():
    assert ImageRequest(prompt="").prompt == ""
    assert parse_parameters("\nSteps: 5").request.prompt == ""
    assert parse_parameters("Negative prompt: fog\nSteps: 5").request == ImageRequest(
        prompt="", negative="fog", steps=5
    )
    assert parse_parameters("Steps: 5, Seed: 3").request == ImageRequest(prompt="", steps=5, seed=3)


A1111 = (
    "(masterpiece:1.2), a cat, <lora:x:1>\nNegative prompt: bad, worse\n"
    "Steps: 20, Sampler: {sampler}, CFG scale: 7, Seed: 12, Size: 513x768, Model hash: abc, Model: toybox, "
    'Hashes: {{"vae": "1", "model": "b"}}, Version: v1.6.0'
)
SAMPLERS = {
    "Euler": "euler",
    "Euler Simple": "euler",
    "Euler a": None,
    "DPM++ 2M": "dpm2",
    "DPM++ 2M Karras": "dpm2",
    "DPM++ 2M SDE": None,
    "DPM++ 3M SDE Karras": None,
    "dpmpp_2m": "dpm2",
    "dpmpp_2m_karras": "dpm2",
    "DDIM": "dpm1",
    "UniPC": None,
    "LCM": None,
    "k" * 10**5: None,
}


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda name: name[:20])
def test_other_programs_samplers_are_mapped_or_passed_over(sampler: str):
    found = parse_parameters(A1111.format(sampler=sampler))
    request = found.request
    assert request.solver == SAMPLERS[sampler]
    assert any("sampler" in note for note in found.notes)
    assert (request.prompt, request.negative) == ("(masterpiece:1.2), a cat, <lora:x:1>", "bad, worse")
    assert (request.steps, request.seed, request.guidance) == (20, 12, 7.0)
    assert (request.width, request.height) == (512, 768)
    assert found.extra == {}
    assert any("model 'toybox' is another program's" in note for note in found.notes)
    assert all(len(note) < 300 for note in found.notes)


@pytest.mark.parametrize(
    ("pair", "field", "value"),
    [("Seed: -1", "seed", 0), ("Seed: 99999999999999999999999", "seed", 0), ("CFG scale: 1e308", "guidance", None),
     ("CFG scale: nan", "guidance", None), ("Size: 99999x99999", "width", None), ("Size: 0x0", "height", None),
     ("Size: big", "width", None), ("Size: 1000 x 1000", "width", 992), ("CFG scale: 7.5", "guidance", 7.5)],
)  # fmt: skip
def test_other_programs_numbers_are_used_or_passed_over(pair: str, field: str, value: object):
    found = parse_parameters(f"a\nSteps: 4, Sampler: Euler, {pair}")
    assert getattr(found.request, field) == value
    assert parse_parameters("a\nSteps: 100000, Sampler: Euler").request.steps is None


@pytest.mark.parametrize(
    "tail", ["a" * 10**5, "a " * 10**5, "a: " * 50000, 'a: "' * 50000, "\\" * 10**5, ", b: \"\\" * 30000, " " * 10**5,
             "-/" * 10**5],
    ids=lambda tail: repr(tail[:4]),
)  # fmt: skip
def test_the_time_of_reading_grows_with_the_text(tail: str):
    """Linear: ten times the text may not take thirty times as long (a quadratic reader would take a hundred)."""

    def seconds(text: str) -> float:
        begun = time.process_time()
        for _ in range(3):
            parse_parameters(text)
        return time.process_time() - begun

    short, long = (f"a\nSteps: 5, Sampler: Euler, {tail[: len(tail) // part]}" for part in (10, 1))
    assert seconds(long) < 30 * max(seconds(short), 1e-3)


def test_a_text_without_end_is_refused():
    with pytest.raises(RequestError, match="longer than"):
        parse_parameters("a\nSteps: 5, " + "a" * 2**20)


@given(st.text(max_size=300))
def test_any_text_is_read_or_refused(text: str):
    for whole in (text, f"{text}\nSteps: 5, Sampler: Euler, {text}", f"a\nSteps: 5, {text}"):
        try:
            parse_parameters(whole)
        except RequestError as error:
            assert len(str(error)) < 500
