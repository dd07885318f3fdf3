"""Streams of events hold what the OpenAPI document says of them: real ones, of every kind."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import httpx
import jsonschema_rs
import pytest
from starlette.testclient import TestClient

from sanakit.server import Engine
from sanakit.server.api.event_bodies import EVENTS
from tests.server.calling import LONG, SMALL, ended, png

Events = list[tuple[str, str]]


@pytest.fixture(scope="module")
def document(client: TestClient) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/api/openapi.json").json()
    return found


def events_in(text: str) -> Events:
    """Names and data of server-sent events, comments left out."""
    blocks = [block.split("\n") for block in text.split("\n\n") if block.startswith("event: ")]
    return [(kind.removeprefix("event: "), data.removeprefix("data: ")) for kind, data in blocks]


def items_of(document: dict[str, Any], operation: str) -> dict[str, Mapping[str, Any]]:
    """Name of an event -> the schema of it as a whole."""
    every = [each for methods in document["paths"].values() for each in methods.values()]
    (found,) = (each for each in every if each["operationId"] == operation)
    items = found["responses"]["200"]["content"]["text/event-stream"]["itemSchema"]["oneOf"]
    return {item["properties"]["event"]["const"]: item for item in items}


def check(document: dict[str, Any], operation: str, events: Events) -> None:
    """Every event is one of the operation's, and its data are what its schema says, and nothing else."""
    items = items_of(document, operation)
    for name, data in events:
        item = items[name]
        jsonschema_rs.validate(item, {"event": name, "data": data})
        schema = {**item["properties"]["data"]["contentSchema"], "components": document["components"]}
        value = json.loads(data)
        jsonschema_rs.validate(schema, value)
        reference = schema["$ref"].rpartition("/")[2]
        assert value.keys() == document["components"]["schemas"][reference]["properties"].keys()


def test_a_stream_of_our_own(client: TestClient, document: dict[str, Any]):
    assert set(items_of(document, "watch_job")) == set(EVENTS)
    order = {"request": SMALL | {"prompt": "red " * 300, "truncate": True, "steps": 3, "count": 2}}
    job_id = client.post("/api/jobs", json=order).json()["id"]
    events = events_in(client.get(f"/api/jobs/{job_id}/events?previews=1").text)
    assert {"snapshot", "step", "picture", "done"} <= {name for name, _ in events}
    assert any(json.loads(data)["preview"] for name, data in events if name == "step")
    check(document, "watch_job", events)


def test_streams_that_end_otherwise(
    client: TestClient, document: dict[str, Any], engine: Engine, address: str
):
    failed = client.post("/api/jobs", json={"request": SMALL | {"prompt": "red " * 300}}).json()["id"]
    assert ended(engine, failed).state == "failed"
    cancelled = client.post("/api/jobs", json={"request": LONG}).json()["id"]
    client.post(f"/api/jobs/{cancelled}/cancel")
    for job_id, name in ((failed, "failed"), (cancelled, "cancelled")):
        events = events_in(httpx.get(f"{address}/api/jobs/{job_id}/events", timeout=60).text)
        assert events[-1][0] == name
        check(document, "watch_job", events)


def test_a_schema_refuses_what_is_no_event_of_its_kind(document: dict[str, Any]):
    with pytest.raises(jsonschema_rs.ValidationError):
        check(document, "watch_job", [("note", json.dumps({"job": {}, "message": "x"}))])


@pytest.mark.parametrize("call", ["generations", "edits"])
def test_streams_of_theirs(call: str, client: TestClient, document: dict[str, Any]):
    fields = {"prompt": "a cube", "stream": True, "partial_images": 2, "steps": 8, "seed": 1}
    if call == "edits":
        form = {name: str(value).lower() for name, value in fields.items()}
        response = client.post("/v1/images/edits", data=form, files={"image": ("x.png", png(), "image/png")})
    else:
        response = client.post("/v1/images/generations", json=fields | {"size": "64x64"})
    assert response.headers["content-type"].startswith("text/event-stream"), response.text
    events = events_in(response.text)
    operation, first = (
        ("edit_images", "image_edit") if call == "edits" else ("generate_images", "image_generation")
    )
    assert [name for name, _ in events][-1] == f"{first}.completed" and f"{first}.partial_image" in events[0][
        0
    ]
    check(document, operation, events)
    for name, data in events:
        assert json.loads(data)["type"] == name and base64.b64decode(json.loads(data)["b64_json"])


def test_a_stream_of_theirs_that_fails(client: TestClient, document: dict[str, Any]):
    body = {"prompt": "red " * 300, "stream": True, "size": "64x64"}
    events = events_in(client.post("/v1/images/generations", json=body).text)
    assert [name for name, _ in events] == ["error"]
    check(document, "generate_images", events)
