"""OpenAI's own client draws, edits, streams and fails here as it does there."""

from __future__ import annotations

import base64
import io

import httpx
import openai
import pytest
from PIL import Image

from sanakit.pipeline.png import decode_record
from sanakit.server import Engine
from tests.server.calling import ended, opened, png

QUICK = {"steps": 2}


@pytest.fixture(scope="module")
def api(address: str):
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        yield client


def decoded(data) -> Image.Image:
    return opened(base64.b64decode(data.b64_json))


def test_pictures_are_generated(api: openai.OpenAI):
    result = api.images.generate(prompt="a red cube", n=2, size="64x96", extra_body=QUICK | {"seed": 5})
    assert (result.size, result.output_format, result.quality, result.background) == (
        "64x96",
        "png",
        "medium",
        "opaque",
    )
    records = [decode_record(base64.b64decode(data.b64_json), "x") for data in result.data]
    assert [record.request.seed for record in records] == [5, 6]
    assert {(record.request.width, record.request.height) for record in records} == {(64, 96)}


def test_a_seed_is_random_unless_it_is_given(api: openai.OpenAI):
    def seed() -> int:
        result = api.images.generate(prompt="a cube", size="64x64", extra_body={"steps": 1})
        return decode_record(base64.b64decode(result.data[0].b64_json), "x").request.seed

    assert seed() != seed()


@pytest.mark.parametrize(("quality", "steps"), [("low", 10), ("auto", 20), ("hd", 40)])
def test_quality_is_a_number_of_steps(quality: str, steps: int, api: openai.OpenAI):
    result = api.images.generate(prompt="a cube", size="32x32", quality=quality)
    assert decode_record(base64.b64decode(result.data[0].b64_json), "x").request.steps == steps


@pytest.mark.parametrize(("form", "name"), [("jpeg", "JPEG"), ("webp", "WEBP")])
def test_other_forms_are_compressed(form: str, name: str, api: openai.OpenAI):
    def size(compression: int) -> int:
        result = api.images.generate(
            prompt="a cube", size="64x64", output_format=form, output_compression=compression,
            extra_body=QUICK | {"seed": 1},
        )  # fmt: skip
        assert decoded(result.data[0]).format == name
        return len(result.data[0].b64_json)

    assert size(10) < size(100)


def test_an_address_instead_of_the_picture(api: openai.OpenAI):
    result = api.images.generate(
        prompt="a cube", size="64x64", response_format="url", output_format="webp", extra_body=QUICK
    )
    assert opened(httpx.get(result.data[0].url).content).format == "WEBP"


def test_what_has_no_effect_is_told(api: openai.OpenAI):
    result = api.images.generate(
        prompt="a cube", size="64x64", background="transparent", moderation="low", extra_body=QUICK
    )
    assert result.notes == [
        "moderation has no effect here.",
        "background has no effect here: pictures are opaque.",
    ]
    assert (
        api.images.generate(prompt="a cube", size="64x64", background="opaque", extra_body=QUICK).notes == []
    )


@pytest.mark.parametrize("partial", [0, 2])
def test_a_stream_shows_partial_pictures(partial: int, api: openai.OpenAI):
    events = list(
        api.images.generate(
            prompt="a cube",
            size="64x64",
            stream=True,
            partial_images=partial,
            extra_body={"steps": 30, "seed": 2},
        )
    )
    assert [event.type for event in events[:-1]] == ["image_generation.partial_image"] * partial
    assert [event.partial_image_index for event in events[:-1]] == list(range(partial))
    assert events[-1].type == "image_generation.completed"
    assert decode_record(base64.b64decode(events[-1].b64_json), "x").request.seed == 2
    for event in events:
        assert decoded(event).format == "PNG"


def test_a_client_that_leaves_its_stream_frees_its_job(api: openai.OpenAI, engine: Engine):
    stream = api.images.generate(prompt="leaving", size="1024x1024", stream=True, extra_body={"steps": 400})
    (job,) = engine.list(text="leaving")
    stream.close()
    assert ended(engine, job.id, 20).state == "cancelled"


def test_a_client_that_stops_waiting_frees_its_job(address: str, engine: Engine):
    body = {"prompt": "impatient", "size": "1024x1024", "steps": 400}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{address}/v1/images/generations", json=body, timeout=1.5)
    (job,) = engine.list(text="impatient")
    assert ended(engine, job.id, 20).state == "cancelled"


def test_a_picture_is_edited_where_the_mask_is_transparent(api: openai.OpenAI):
    mask = Image.new("RGBA", (64, 64), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (32, 0, 64, 64))
    buffer = io.BytesIO()
    mask.save(buffer, "PNG")
    result = api.images.edit(
        image=("a.png", png("blue")), mask=("m.png", buffer.getvalue()), prompt="a cube", extra_body=QUICK
    )
    image = decoded(result.data[0])
    assert image.getpixel((3, 3)) == (0, 0, 255) != image.getpixel((60, 3))


def test_without_a_mask_the_picture_is_one_or_all_of_it_changes(api: openai.OpenAI):
    clear = png((0, 0, 255, 0), mode="RGBA")
    result = api.images.edit(image=("a.png", clear), prompt="a cube", n=2, extra_body=QUICK)
    record = decode_record(base64.b64decode(result.data[1].b64_json), "x")
    assert record.request.mask is not None
    result = api.images.edit(
        image=("a.png", png("blue")), prompt="a cube", extra_body=QUICK | {"strength": 0.9}
    )
    record = decode_record(base64.b64decode(result.data[0].b64_json), "x")
    assert (record.request.mask, record.request.strength) == (None, 0.9)


def test_an_edit_streams(api: openai.OpenAI):
    events = list(
        api.images.edit(image=("a.png", png("blue")), prompt="a cube", stream=True, extra_body=QUICK)
    )
    assert [event.type for event in events] == ["image_edit.completed"]


def test_models_are_listed(api: openai.OpenAI, engine: Engine):
    assert [model.id for model in api.models.list()] == list(engine.catalogue.models)
    assert api.models.retrieve(engine.catalogue.default).object == "model"


@pytest.mark.parametrize(
    ("given", "kind", "param", "words"),
    [
        ({"n": 11}, openai.BadRequestError, "n", "less than or equal to 10"),
        ({"size": "64x65"}, openai.BadRequestError, None, "multiple of 32"),
        ({"size": "big"}, openai.BadRequestError, None, "size"),
        ({"model": "dall-e-3"}, openai.NotFoundError, None, "dall-e-3"),
        ({"output_format": "gif"}, openai.BadRequestError, "output_format", "'png', 'jpeg' or 'webp'"),
        ({"extra_body": {"seed": -1}}, openai.BadRequestError, "seed", "seed must be a whole number from 0"),
        ({"extra_body": {"frames": 3}}, openai.BadRequestError, "frames", "frames: extra"),
    ],
)
def test_errors_have_their_shape(given: dict, kind: type, param: str | None, words: str, api: openai.OpenAI):
    with pytest.raises(kind) as caught:
        api.images.generate(**{"prompt": "a cube", "size": "64x64"} | given)
    body = caught.value.body
    assert set(body) == {"message", "type", "param", "code"}
    assert (body["param"], body["type"]) == (param, "invalid_request_error")
    assert words in body["message"]
    if kind is openai.NotFoundError:
        assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"image": [("a.png", png()), ("b.png", png())]}, "one file"),
        ({"image": ("a.png", b"no picture")}, "a picture of a known form"),
        ({"image": ("a.png", png()), "mask": ("m.png", png())}, "alpha channel"),
    ],
)
def test_files_that_can_not_be_edited(files: dict, words: str, api: openai.OpenAI):
    with pytest.raises(openai.BadRequestError, match=words):
        api.images.edit(prompt="a cube", **files)
