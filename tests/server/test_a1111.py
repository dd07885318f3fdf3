"""Clients of the AUTOMATIC1111 web UI draw, change, watch and interrupt here."""

from __future__ import annotations

import base64
import json
import threading
import time

import httpx
import pytest
from PIL import Image
from starlette.testclient import TestClient

from sanakit.pipeline.png import decode_record
from sanakit.server import Engine
from tests.server.calling import LONG, opened, png

ASKED = {"prompt": "a red cube", "width": 64, "height": 64, "steps": 2}
LIKE_CLIENTS = {
    "negative_prompt": "", "styles": [], "seed": -1, "subseed": -1, "subseed_strength": 0, "batch_size": 1, "n_iter": 1,
    "cfg_scale": 7, "restore_faces": False, "tiling": False, "eta": 0, "s_churn": 0, "s_tmin": 0, "s_noise": 1,
    "override_settings": {}, "alwayson_scripts": {}, "script_name": None, "send_images": True, "save_images": False,
    "enable_hr": False, "hr_scale": 2, "sampler_name": "Euler", "scheduler": "Automatic",
}  # fmt: skip
"""What clients send beside it, all at defaults."""


def answered(client: TestClient, path: str, body: dict) -> tuple[list[bytes], dict]:
    response = client.post(f"/sdapi/v1/{path}", json=body)
    assert response.status_code == 200, response.text
    found = response.json()
    return [base64.b64decode(image) for image in found["images"]], json.loads(found["info"])


def test_a_prompt_becomes_pictures(client: TestClient):
    images, info = answered(
        client, "txt2img", ASKED | LIKE_CLIENTS | {"seed": 4, "batch_size": 2, "n_iter": 2}
    )
    assert info["all_seeds"] == [4, 5, 6, 7]
    assert info["notes"] == ["the sampler 'Euler' is read as euler."]
    requests = [decode_record(image, "x").request for image in images]
    assert [request.seed for request in requests] == [4, 5, 6, 7]
    assert {(request.solver, request.guidance) for request in requests} == {("euler", 7)}
    assert info["infotexts"][1].startswith(
        "a red cube\nSteps: 2, Sampler: euler, CFG scale: 7.0, Seed: 5, Size: 64x64"
    )


def test_what_is_not_done_here_is_told(client: TestClient):
    more = {
        "enable_hr": True,
        "restore_faces": True,
        "width": 70,
        "override_settings": {"CLIP_stop_at_last_layers": 2},
    }
    images, info = answered(client, "txt2img", ASKED | LIKE_CLIENTS | more)
    assert opened(images[0]).size == (64, 64)
    notes = " ".join(info["notes"])
    for words in ("enable_hr has no", "restore_faces has no", "width 70 is read as 64", "no 'CLIP_stop"):
        assert words in notes


def test_a_picture_is_changed_where_its_mask_is_white(client: TestClient):
    picture = base64.b64encode(png("blue")).decode()
    white = Image.new("L", (64, 64), 0)
    white.paste(255, (32, 0, 64, 64))
    mask = base64.b64encode(_png(white)).decode()
    body = ASKED | {
        "init_images": [f"data:image/png;base64,{picture}"],
        "mask": mask,
        "denoising_strength": 1,
    }
    image = opened(answered(client, "img2img", body)[0][0])
    assert image.getpixel((3, 3)) == (0, 0, 255) != image.getpixel((60, 3))
    image = opened(answered(client, "img2img", body | {"inpainting_mask_invert": 1})[0][0])
    assert image.getpixel((3, 3)) != (0, 0, 255) == image.getpixel((60, 3))


def _png(image: Image.Image) -> bytes:
    import io

    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_a_job_is_watched_and_interrupted(address: str, engine: Engine):
    answers = []
    body = ASKED | LONG | {"prompt": "interrupted"}

    def ask() -> None:
        answers.append(httpx.post(f"{address}/sdapi/v1/txt2img", json=body, timeout=60))

    thread = threading.Thread(target=ask)
    thread.start()
    until = time.monotonic() + 30
    while (found := httpx.get(f"{address}/sdapi/v1/progress?skip_current_image=true").json())[
        "progress"
    ] == 0:
        assert time.monotonic() < until
    assert 0 < found["progress"] < 1 and found["state"]["sampling_steps"] == 400
    while (image := httpx.get(f"{address}/sdapi/v1/progress").json()["current_image"]) is None:
        assert time.monotonic() < until
    assert opened(base64.b64decode(image)).format == "JPEG"
    assert httpx.post(f"{address}/sdapi/v1/interrupt").json() == {}
    thread.join(30)
    assert answers[0].status_code == 200, answers[0].text
    assert answers[0].json()["images"] == []
    assert engine.list(text="interrupted")[0].state == "cancelled"
    assert httpx.get(f"{address}/sdapi/v1/progress").json()["progress"] == 0


def test_what_clients_ask_for_when_they_start(client: TestClient, engine: Engine):
    model = engine.catalogue.default
    assert [row["title"] for row in client.get("/sdapi/v1/sd-models").json()] == [model]
    assert "dpm2" in [row["name"] for row in client.get("/sdapi/v1/samplers").json()]
    assert client.get("/sdapi/v1/options").json() == {"sd_model_checkpoint": model}
    assert client.post("/sdapi/v1/options", json={"sd_model_checkpoint": model}).status_code == 200
    for path in ("loras", "schedulers", "upscalers", "prompt-styles", "sd-vae"):
        assert client.get(f"/sdapi/v1/{path}").json() == []


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"steps": 0}, 422, "steps must be a whole number from 1"),
        ({"prompt": "<lora:../../x:1> a cube"}, 422, "no LoRA '../../x'"),
        ({"prompt": "<lora:x:1.2.3> a cube"}, 422, "no number"),
        ({"override_settings": {"sd_model_checkpoint": "v1-5"}}, 404, "no model 'v1-5'"),
        ({"width": 10**400}, 422, "width"),
        ({"batch_size": 100}, 422, "count may be 12"),
    ],
)
def test_errors_have_their_shape(body: dict, status: int, words: str, client: TestClient):
    response = client.post("/sdapi/v1/txt2img", json=ASKED | body)
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error", "detail", "body", "errors"}
    assert words in response.json()["detail"]
    assert client.post("/sdapi/v1/options", json={"x": 1, "sd_model_checkpoint": "y"}).status_code == 422
