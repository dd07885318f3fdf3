"""What every response carries, and what a browser can't be talked into."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from sanakit.base.errors import ConfigError
from sanakit.server import Engine
from sanakit.server.app import create_app
from sanakit.server.settings import Settings
from tests.server.calling import HOST, SMALL


@pytest.mark.parametrize("path", ["/health", "/api/jobs", "/nothing", "/api/jobs/x", "/v1/models/x"])
def test_every_response_has_the_headers(path: str, client: TestClient):
    headers = client.get(path).headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'self'" and policy["frame-ancestors"] == "'none'"
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-request-id"]


def test_a_fault_of_the_server_is_told_without_its_traceback(
    client: TestClient, engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def fails(*given: object, **more: object) -> None:
        raise ZeroDivisionError("secret-detail")

    monkeypatch.setattr(engine, "list", fails)
    with caplog.at_level("ERROR", logger="sanakit.server"):
        response = client.get("/api/jobs", headers={"X-Request-Id": "look-here"})
    assert response.status_code == 500
    assert "look-here" in response.json()["error"]["message"] and "secret-detail" not in response.text
    assert response.headers["x-frame-options"] == "DENY"
    assert "secret-detail" in caplog.text


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (HOST, 201),
        (None, 201),
        ("http://evil.example", 403),
        ("null", 403),
        ("http://127.0.0.1:9", 403),
        ("//[", 403),
    ],
)
def test_other_sites_can_not_have_pictures_drawn(origin: str | None, status: int, client: TestClient):
    headers = {} if origin is None else {"Origin": origin}
    assert client.post("/api/jobs", json={"request": SMALL}, headers=headers).status_code == status
    assert client.get("/api/jobs", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1:8000", 200), ("localhost", 200), ("[::1]:80", 200), ("draw.example", 200), ("DRAW.example:1", 200),
     ("evil.example", 403), ("127.0.0.1.evil.example", 403), ("", 403), ("[", 403)],
)  # fmt: skip
def test_a_server_of_this_machine_answers_to_its_names(host: str, status: int, engine: Engine):
    client = TestClient(create_app(engine, Settings(hosts=("draw.example",))), base_url=HOST)
    assert client.get("/health", headers={"Host": host}).status_code == status


def test_a_public_server_answers_to_any_name(engine: Engine):
    client = TestClient(create_app(engine, Settings(host="0.0.0.0")), base_url=HOST)
    assert client.get("/health", headers={"Host": "draw.example"}).status_code == 200


@pytest.mark.parametrize("path", ["/api/jobs", "/api/read", "/v1/images/generations", "/sdapi/v1/txt2img"])
@pytest.mark.parametrize("told", [True, False])
def test_large_bodies_are_refused(path: str, told: bool, engine: Engine):
    client = TestClient(create_app(engine, Settings(body=1000)), base_url=HOST, raise_server_exceptions=False)
    body = b"x" * 1001
    content = body if told else iter([body[:600], body[600:]])
    response = client.post(path, content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == 413, response.text
    assert "error" in response.json()


def test_large_forms_are_refused(engine: Engine):
    client = TestClient(create_app(engine, Settings(body=1000)), base_url=HOST, raise_server_exceptions=False)
    response = client.post("/v1/images/edits", data={"prompt": "x"}, files={"image": b"x" * 2000})
    assert response.status_code == 413, response.text


def test_pictures_that_are_large_once_decoded_are_refused(engine: Engine):
    import base64

    from tests.server.calling import png

    client = TestClient(create_app(engine, Settings(input_pixels=64 * 64)), base_url=HOST)
    inputs = {"source": base64.b64encode(png(size=(96, 64))).decode()}
    response = client.post("/api/jobs", json={"inputs": inputs, "request": {"prompt": "x"}})
    assert response.status_code == 422
    assert "96 x 64 pixels, more than 4,096" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    "path",
    ["/page/../app.py", "/page/..%2fapp.py", "/page/%2e%2e/keys.py", "/page/%2fetc%2fpasswd", "/page/",
     "/page//etc/passwd", "/api/images/..%2f..%2fkeys", "/api/images/%00", "/api/images/....png",
     "/v1/models/../../etc/passwd"],
)  # fmt: skip
def test_no_path_of_a_request_is_one_of_the_machine(path: str, client: TestClient):
    response = client.get(path)
    assert response.status_code == 404
    assert "root:" not in response.text and "import" not in response.text


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_public_addresses_are_known(host: str):
    assert Settings(host=host).is_public
    assert not any(Settings(host=own).is_public for own in ("127.0.0.1", "127.1.2.3", "::1", "localhost"))


@pytest.mark.parametrize(
    "given", [{"port": -1}, {"port": 70000}, {"host": ""}, {"host": "a b"}, {"logs": "loud"}]
)
def test_settings_that_make_no_sense(given: dict):
    with pytest.raises(ConfigError):
        Settings(**given)
