"""Our own API: what is asked for is drawn, told, kept and forgotten."""

from __future__ import annotations

import base64
import json

import httpx
import pytest
from PIL import Image
from starlette.testclient import TestClient

from sanakit.pipeline import ImageRequest
from sanakit.pipeline.png import decode_record
from sanakit.server import Engine
from tests.server.calling import LONG, SMALL, draw, ended, opened, png


def data_url(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def events_of(text: str) -> list[tuple[str, dict]]:
    """Kinds and data of server-sent events."""
    blocks = [block for block in text.split("\n\n") if block.startswith("event: ")]
    pairs = [block.split("\n", 1) for block in blocks]
    return [(kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for kind, data in pairs]


def test_a_job_becomes_a_picture_with_its_request(client: TestClient, engine: Engine):
    job = draw(client, engine, seed=7, count=2)
    assert (job["state"], job["step"], job["total"], job["position"]) == ("done", 4, 4, None)
    assert [picture["seed"] for picture in job["pictures"]] == [7, 8]
    response = client.get(job["pictures"][1]["url"])
    assert response.headers["content-type"] == "image/png"
    assert "immutable" in response.headers["cache-control"]
    request = decode_record(response.content, "x").request
    assert (request.prompt, request.seed, request.count) == (SMALL["prompt"], 8, 1)
    told = client.get(job["pictures"][1]["url"] + "/metadata").json()
    assert ImageRequest.from_json(told["request"]) == request
    again = client.get(job["pictures"][1]["url"], headers={"If-None-Match": response.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_a_picture_comes_smaller_and_in_other_forms(client: TestClient, engine: Engine):
    url = draw(client, engine)["pictures"][0]["url"]
    for query, form, size in (("?width=32", "WEBP", (32, 32)), ("?format=jpeg", "JPEG", (64, 64)),
                              ("?format=webp&width=1000", "WEBP", (64, 64))):  # fmt: skip
        image = opened(client.get(url + query).content)
        assert (image.format, image.size) == (form, size)
        assert b"trainedAlgorithmicMedia" in image.info["xmp"]
    assert client.get(url + "?width=32&format=png").status_code == 422


def test_a_request_of_any_job_is_asked_for_again(client: TestClient, engine: Engine):
    first = draw(client, engine, seed=3, guidance=2.5, negative="snow", cfg_interval=[0.1, 0.9])
    response = client.post("/api/jobs", json={"request": first["request"]})
    second = ended(engine, response.json()["id"])
    pictures = [engine.picture(first["pictures"][0]["id"]), engine.picture(second.pictures[0].id)]
    assert pictures[0] == pictures[1]


def test_what_is_said_about_a_job_stays_with_it(client: TestClient, engine: Engine):
    """The end of a long prompt is cut: whoever comes later finds that at the job, in lists, and in their APIs."""
    order = {"request": SMALL | {"prompt": "red " * 400, "truncate": True}}
    job_id = client.post("/api/jobs", json=order).json()["id"]
    events = events_of(client.get(f"/api/jobs/{job_id}/events").text)
    (note,) = client.get(f"/api/jobs/{job_id}").json()["notes"]
    assert note.startswith("the prompt is too long") and events[-1][1]["job"]["notes"] == [note]
    assert note in [job["notes"][0] for job in client.get("/api/jobs").json()["jobs"] if job["notes"]]
    theirs = {"prompt": order["request"]["prompt"], "truncate": True, "size": "64x64", "steps": 1}
    assert client.post("/v1/images/generations", json=theirs).json()["notes"] == [note]


def test_events_lead_from_a_snapshot_to_the_end(client: TestClient, engine: Engine):
    job_id = client.post("/api/jobs", json={"request": SMALL | {"steps": 3}}).json()["id"]
    response = client.get(f"/api/jobs/{job_id}/events?previews=true")
    assert response.headers["content-type"].startswith("text/event-stream")
    events = events_of(response.text)
    assert (events[0][0], events[-1][0]) == ("snapshot", "done")
    assert events[-1][1]["job"]["pictures"][0]["url"].startswith("/api/images/")
    assert (
        client.get(f"/api/jobs/{job_id}/events").text.count("event: ") == 2
    )  # of a finished job: snapshot, done


@pytest.mark.parametrize(("leave", "state"), [("cancel", "cancelled"), ("keep", "running")])
def test_a_client_that_leaves_its_stream(leave: str, state: str, address: str, engine: Engine):
    job_id = httpx.post(f"{address}/api/jobs", json={"request": LONG}).json()["id"]
    with httpx.stream("GET", f"{address}/api/jobs/{job_id}/events?leave={leave}", timeout=60) as response:
        for line in response.iter_lines():
            if line == "event: step":
                break
    if leave == "cancel":
        assert ended(engine, job_id, 20).state == state
    else:
        assert engine.get(job_id).state == state
        client = httpx.post(f"{address}/api/jobs/{job_id}/cancel").json()
        assert client["id"] == job_id
        assert ended(engine, job_id).state == "cancelled"


def test_jobs_are_listed_searched_cancelled_and_forgotten(client: TestClient, engine: Engine):
    first = draw(client, engine, prompt="a violet zeppelin")
    second = draw(client, engine, prompt="a violet teapot")
    ids = [job["id"] for job in client.get("/api/jobs?text=violet&state=done").json()["jobs"]]
    assert ids == [second["id"], first["id"]]
    older = client.get("/api/jobs", params={"text": "VIOLET", "before": second["id"]}).json()["jobs"]
    assert [job["id"] for job in older] == [first["id"]]
    assert client.post(f"/api/jobs/{first['id']}/cancel").json()["state"] == "done"
    url = first["pictures"][0]["url"]
    assert client.delete(f"/api/jobs/{first['id']}").status_code == 204
    assert client.get(f"/api/jobs/{first['id']}").status_code == client.get(url).status_code == 404
    assert client.get("/api/jobs?limit=0").status_code == 422


def test_a_live_job_takes_the_place_of_the_one_before(client: TestClient, engine: Engine):
    old = client.post("/api/jobs", json={"live": "typing-1", "request": LONG}).json()["id"]
    new = client.post("/api/jobs", json={"live": "typing-1", "request": SMALL}).json()["id"]
    assert ended(engine, old).state == "cancelled"
    assert ended(engine, new).state == "done"


def test_a_picture_is_changed_where_its_mask_is_white(client: TestClient, engine: Engine):
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (32, 0, 64, 64))
    inputs = {"source": data_url(png("blue")), "mask": data_url(_png(mask))}
    response = client.post("/api/jobs", json={"inputs": inputs, "request": {"prompt": "a cube", "steps": 2}})
    job = ended(engine, response.json()["id"])
    assert job.state == "done", job.error
    image = opened(engine.picture(job.pictures[0].id))
    assert image.getpixel((3, 3)) == (0, 0, 255)
    assert image.getpixel((60, 3)) != (0, 0, 255)


def _png(image: Image.Image) -> bytes:
    import io

    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_an_edit_is_drawn_again_with_the_pictures_that_it_was_given(client: TestClient, engine: Engine):
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (32, 0, 64, 64))
    inputs = {"source": data_url(png("blue")), "mask": data_url(_png(mask))}
    order = {
        "inputs": inputs,
        "request": {"prompt": "a cube", "steps": 2, "seed": 3, "count": 2, "strength": 0.7},
    }
    first = client.post("/api/jobs", json=order).json()
    ended(engine, first["id"])
    second = client.post(f"/api/jobs/{first['id']}/recreate", json={}).json()
    third = client.post(f"/api/jobs/{first['id']}/recreate", json={"request": {"seed": 4, "count": 1}}).json()
    assert second["request"] == first["request"]
    assert third["request"] == first["request"] | {"seed": 4, "count": 1}
    one, two, three = ([engine.picture(each.id) for each in ended(engine, job["id"]).pictures]
                       for job in (first, second, third))  # fmt: skip
    assert one == two and opened(three[0]).tobytes() == opened(one[1]).tobytes()
    for name, pixels in (("source", opened(png("blue"))), ("mask", mask)):
        given = client.get(f"/api/jobs/{third['id']}/inputs/{first['request'][name]['sha256']}")
        assert opened(given.content).convert("RGB").tobytes() == pixels.convert("RGB").tobytes()


def test_what_cannot_be_drawn_again_is_said(client: TestClient, engine: Engine):
    path = f"/api/jobs/{draw(client, engine)['id']}"
    assert client.get(f"{path}/inputs/{'a' * 64}").status_code == 404
    assert client.get(f"{path}/inputs/..%2f..%2fkeys.json").status_code == 404
    wrong = client.post(f"{path}/recreate", json={"request": {"steps": 0}})
    assert (wrong.status_code, wrong.json()["error"]["field"]) == (422, "request.steps")
    assert client.post(f"{path}/recreate", json={"request": {"source": "x"}}).status_code == 422
    client.delete(path)
    assert client.post(f"{path}/recreate", json={}).status_code == 404


def test_regions_have_words_of_their_own(client: TestClient, engine: Engine):
    regions = [{"box": [0, 0, 0.5, 1], "text": "a blue cone"}, {"box": [32, 0, 32, 64], "prompt": "snow"}]
    job = draw(client, engine, regions=regions)
    assert [region["prompt"] for region in job["request"]["regions"]] == ["a blue cone", "snow"]
    assert job["state"] == "done"


def test_a_grid_draws_every_pair(client: TestClient, engine: Engine):
    order = {
        "request": SMALL,
        "x": {"field": "steps", "values": [1, 2, 3]},
        "y": {"field": "seed", "values": [5, 6]},
    }
    rows = client.post("/api/grid", json=order).json()["jobs"]
    pairs = [[(job["request"]["seed"], job["request"]["steps"]) for job in row] for row in rows]
    assert pairs == [[(5, 1), (5, 2), (5, 3)], [(6, 1), (6, 2), (6, 3)]]
    assert {ended(engine, job["id"]).state for row in rows for job in row} == {"done"}


def test_a_grid_with_one_wrong_value_draws_nothing(client: TestClient):
    before = client.get("/api/jobs").json()
    for axis in ({"field": "steps", "values": [1, 0]}, {"field": "steps", "values": [1, 500]},
                 {"field": "source", "values": ["/etc/passwd"]}, {"field": "seed", "values": []}):  # fmt: skip
        response = client.post("/api/grid", json={"request": SMALL, "x": axis})
        assert response.status_code == 422, response.text
    many = {"field": "seed", "values": list(range(60))}
    response = client.post(
        "/api/grid", json={"request": SMALL, "x": many, "y": {"field": "steps", "values": [1, 2]}}
    )
    assert "64 jobs" in response.json()["error"]["message"]
    assert client.get("/api/jobs").json() == before


def test_a_dropped_picture_gives_its_settings(client: TestClient, engine: Engine):
    job = draw(client, engine, seed=11)
    picture = client.get(job["pictures"][0]["url"]).content
    read = client.post("/api/read", content=picture, headers={"Content-Type": "image/png"})
    assert read.status_code == 200, read.text
    assert read.json()["request"]["seed"] == 11
    assert read.json()["model"] == job["model"]
    empty = client.post("/api/read", content=png(), headers={"Content-Type": "image/png"})
    assert (empty.status_code, empty.json()["error"]["type"]) == (422, "PictureError")


def test_capabilities_are_what_requests_may_ask_for(client: TestClient, engine: Engine):
    found = client.get("/api/capabilities").json()
    model = found["models"][0]
    assert model["default"] and model["name"] == engine.catalogue.default
    assert found["limits"] == {
        "queue": 256,
        "count": 12,
        "steps": 400,
        "pixels": 4096**2,
        "body": 32 << 20,
        "cells": 64,
        "keep_days": None,
        "keep_pictures": None,
    }
    assert "canny" in found["annotators"] and found["toybox"] is None
    request = {"prompt": "a cube", **model["defaults"], "steps": 1, "width": 64, "height": 64}
    assert client.post("/api/jobs", json={"model": model["name"], "request": request}).status_code == 201


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"steps": 0}, "request.steps", "steps must be a whole number from 1 to 1000, not 0"),
        ({"steps": True}, "request.steps", "steps must be a whole number"),
        ({"steps": 401}, None, "steps may be 400 here"),
        ({"count": 13}, None, "count may be 12 here"),
        ({"guidance": "much"}, "request.guidance", "guidance must be a number from 0 to 1000, not 'much'"),
        ({"width": 65}, "request.width", "multiple of 32"),
        ({"solver": "magic"}, "request.solver", "unknown solver 'magic'"),
        ({"cfg_interval": [0.5]}, "request.cfg_interval", "two numbers"),
        ({"prompt": "x" * 32001}, "request.prompt", "32,000"),
        ({"source": "/etc/passwd"}, "request.source", "extra"),
        ({"loras": [{"name": "../x"}]}, None, "no LoRA '../x' here"),
        ({"controls": [{"name": "x", "picture": "y"}]}, None, "no control 'x' here"),
        ({"regions": [{"box": [0, 0, 1], "text": "x"}]}, "request.regions.0.box", "at least 4"),
        ({"regions": [{"box": [0, 0, 0, 1], "text": "x"}]}, None, "width and height above 0"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_field(
    change: dict, field: str | None, words: str, client: TestClient
):
    response = client.post("/api/jobs", json={"request": SMALL | change})
    error = response.json()["error"]
    assert (response.status_code, error["field"]) == (422, field), error
    assert words in error["message"] and error["message"].endswith(".")


def test_an_unknown_model_is_named_with_those_that_are_there(client: TestClient, engine: Engine):
    response = client.post("/api/jobs", json={"model": "dall-e-9", "request": SMALL})
    assert response.status_code == 404
    assert engine.catalogue.default in response.json()["error"]["message"]
