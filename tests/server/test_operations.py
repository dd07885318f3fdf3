"""Health, metrics, logs and traces: how a server is watched."""

from __future__ import annotations

import json
import logging

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from sanakit import __version__
from sanakit.server import Engine
from sanakit.server.app import create_app
from sanakit.server.logs import set_up_logs
from sanakit.server.settings import Settings
from tests.server.calling import HOST, SMALL, draw


def samples(client: TestClient) -> dict[tuple[str, str], float]:
    """Name and labels of every sample -> its value."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {
        (one.name, " ".join(one.labels.values())): one.value for family in families for one in family.samples
    }


def test_a_server_lives_and_takes_jobs(client: TestClient, engine: Engine):
    assert client.get("/health").json() == {"status": "ok", "version": __version__}
    assert client.get("/ready").json() == {"ready": True, "reason": None}
    app = create_app(engine, Settings())
    app.state.service.stopping.set()
    response = TestClient(app, base_url=HOST).get("/ready")
    assert (response.status_code, response.json()["reason"]) == (503, "the server stops")


def test_a_full_queue_says_when_to_come_back(full: ASGIApp):
    client = TestClient(full, base_url=HOST)
    for path, body in (("/api/jobs", {"request": SMALL}), ("/v1/images/generations", {"prompt": "x", "size": "64x64"}),
                       ("/sdapi/v1/txt2img", SMALL)):  # fmt: skip
        response = client.post(path, json=body)
        assert response.status_code == 429, response.text
        assert int(response.headers["retry-after"]) >= 1
        assert "are waiting, which is as many as may" in response.text
    assert client.get("/ready").json() == {"ready": False, "reason": "the queue is full"}


def test_metrics_count_jobs_pictures_and_responses(client: TestClient, engine: Engine):
    before = samples(client)
    draw(client, engine, count=2)
    assert client.get("/api/jobs/none").status_code == 404
    after = samples(client)
    grown = {key: after[key] - before.get(key, 0) for key in after if after[key] != before.get(key, 0)}
    assert grown["sanakit_jobs_submitted_total", ""] == 1
    assert grown["sanakit_jobs_ended_total", "done"] == 1
    assert grown["sanakit_pictures_total", ""] == 2
    assert grown["sanakit_http_responses_total", "native 201"] == 1
    assert grown["sanakit_http_responses_total", "native 404"] == 1
    assert after["process_resident_memory_bytes", ""] > 1e7
    assert after["sanakit_jobs_queued", ""] == 0


def test_strangers_make_no_labels(client: TestClient):
    for path in ("/secret-1", "/secret-2/x", "//secret-3"):
        client.get(path)
    assert "secret" not in client.get("/metrics").text


@pytest.mark.parametrize("form", ["json", "text", "off"])
def test_logs_are_lines_with_the_id_of_their_request(form, client: TestClient):
    lines: list[str] = []
    names = ("sanakit.server", "uvicorn")
    before = {name: (logging.getLogger(name).handlers, logging.getLogger(name).propagate) for name in names}
    set_up_logs(form, lines.append)
    try:
        client.get("/api/jobs/none", headers={"X-Request-Id": "it-is-me"})
        client.get("/api/jobs", headers={"X-Request-Id": "no id\x1b[0m"})
    finally:
        for name, (handlers, propagate) in before.items():
            logging.getLogger(name).handlers, logging.getLogger(name).propagate = handlers, propagate
    if form == "off":
        assert lines == []
    elif form == "text":
        assert lines[0].endswith("info request GET /api/jobs/none 404 " + lines[0].split()[-1])
    else:
        rows = [json.loads(line) for line in lines]
        facts = ("level", "request", "method", "path", "status")
        assert [rows[0][name] for name in facts] == ["info", "it-is-me", "GET", "/api/jobs/none", 404]
        assert len(rows[1]["request"]) == 16


def test_a_job_is_a_span_below_its_request(engine: Engine):
    sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="needs the extra `traces`")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    kept, provider = InMemorySpanExporter(), sdk.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    with TestClient(create_app(engine, Settings(), provider), base_url=HOST) as client:
        job = draw(client, engine)
        spans = {span.name: span for span in kept.get_finished_spans()}
    request = next(span for name, span in spans.items() if name.startswith("POST"))
    assert spans["job"].attributes["sanakit.job"] == job["id"]
    assert spans["job"].context.trace_id == request.context.trace_id
    for part in ("wait", "draw"):
        assert spans[part].parent.span_id == spans["job"].context.span_id
    assert (
        spans["wait"].end_time == spans["draw"].start_time <= spans["draw"].end_time == spans["job"].end_time
    )
