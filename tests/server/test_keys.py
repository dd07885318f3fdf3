"""API keys: shown once, kept as hashes, and what each may do."""

from __future__ import annotations

import json
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from sanakit.base.errors import ConfigError, RequestError
from sanakit.server import Engine
from sanakit.server.app import create_app
from sanakit.server.keys import FILE, KeyStore
from sanakit.server.rates import Rates
from sanakit.server.refusals import RateError
from sanakit.server.settings import Settings
from tests.server.calling import HOST, SMALL, ended


def test_a_key_is_kept_as_its_hash_alone(tmp_path: Path):
    text, key = KeyStore(tmp_path).add("anna", ["read", "draw"], "60/minute")
    assert text.startswith("sk-sana-") and len(text) > 40
    kept = (tmp_path / FILE).read_text()
    assert text not in kept and text.removeprefix("sk-sana-") not in kept
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    found = KeyStore(tmp_path).find(text)
    assert found == key
    assert (key.scopes, key.rate) == (("draw", "read"), "60/minute")
    assert KeyStore(tmp_path).find(text + "x") is KeyStore(tmp_path).find("") is None


def test_a_running_server_sees_keys_come_and_go(tmp_path: Path):
    running, command = KeyStore(tmp_path), KeyStore(tmp_path)
    assert running.all() == ()
    text, key = command.add("anna", ["draw"])
    assert running.find(text) == key
    assert command.remove("anna") == key
    assert running.find(text) is None
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize(
    ("name", "scopes", "rate", "words"),
    [
        ("anna", ["draw"], None, "there is a key 'anna' already"),
        ("a/b", ["draw"], None, "name of a key"),
        ("bert", ["fly"], None, "not 'fly'"),
        ("bert", [], None, "scopes"),
        ("bert", ["draw"], "often", "60/minute"),
    ],
)
def test_keys_that_can_not_be_made(
    name: str, scopes: list[str], rate: str | None, words: str, tmp_path: Path
):
    store = KeyStore(tmp_path)
    store.add("anna", ["draw"])
    with pytest.raises(RequestError, match=words):
        store.add(name, scopes, rate)
    assert [key.name for key in store.all()] == ["anna"]
    with pytest.raises(RequestError, match="no key 'bert'"):
        store.remove("bert")


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"keys": 1}', '{"keys": [{}]}', '{"keys": [{"scopes": ["x"]}]}']
)
def test_a_damaged_file_lets_nobody_in(content: str, tmp_path: Path):
    (tmp_path / FILE).write_text(content)
    with pytest.raises(ConfigError, match="no keys that can be read"):
        KeyStore(tmp_path).all()


def test_a_file_that_is_damaged_while_the_server_runs_lets_nobody_in(engine: Engine, tmp_path: Path):
    app = create_app(engine, Settings())
    object.__setattr__(app.state.service, "keys", KeyStore(tmp_path))
    (tmp_path / FILE).write_text("{")
    response = TestClient(app, base_url=HOST).get("/api/jobs")
    assert response.status_code == 500
    assert FILE not in response.text and str(tmp_path) not in response.text


def test_rates_count_each_key_alone():
    rates = Rates()
    rates.take("a", "3/hour", 2)
    with pytest.raises(RateError) as caught:
        rates.take("a", "3/hour", 2)
    assert 1 <= caught.value.retry_after <= 3600
    rates.take("a", "3/hour")
    rates.take("b", "3/hour", 3)
    with pytest.raises(RateError, match="more than this key may ask for"):
        rates.take("b", "3/hour", 4)
    for _ in range(100):
        rates.take("b", None)


def test_a_public_server_whose_last_key_is_removed_lets_nobody_in(engine: Engine):
    client = TestClient(create_app(engine, Settings(host="0.0.0.0")), base_url=HOST)
    assert client.get("/api/jobs").status_code == 401
    assert client.get("/health").status_code == 200


@pytest.fixture(scope="module")
def keyed(
    engine: Engine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[TestClient, dict[str, str]]]:
    """The application with keys of each kind, and their texts."""
    app = create_app(engine, Settings(rate="1000/minute"))
    store = KeyStore(tmp_path_factory.mktemp("keys"))
    texts = {name: store.add(name, [name])[0] for name in ("draw", "read", "admin")}
    texts["other"] = store.add("other", ["draw"])[0]
    texts["slow"] = store.add("slow", ["draw"], "2/hour")[0]
    object.__setattr__(app.state.service, "keys", store)
    with TestClient(app, base_url=HOST, raise_server_exceptions=False) as client:
        yield client, texts


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


@pytest.mark.parametrize(
    ("path", "allowed"),
    [("/api/jobs", "draw read admin"), ("/v1/models", "draw read admin"), ("/sdapi/v1/progress", "draw read admin"),
     ("/metrics", "read admin")],
)  # fmt: skip
def test_who_may_look(path: str, allowed: str, keyed: tuple[TestClient, dict[str, str]]):
    client, texts = keyed
    for name in ("draw", "read", "admin"):
        response = client.get(path, headers=bearer(texts[name]))
        assert response.status_code == (200 if name in allowed.split() else 403), response.text
    for headers in ({}, bearer("wrong"), bearer(""), {"Authorization": "Basic !!"}, {"Authorization": "x"}):
        response = client.get(path, headers=headers)
        assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
    assert client.get("/health").status_code == client.get("/ready").status_code == 200


def test_each_key_sees_and_changes_its_own_jobs(keyed: tuple[TestClient, dict[str, str]], engine: Engine):
    client, texts = keyed
    job = client.post("/api/jobs", json={"request": SMALL}, headers=bearer(texts["draw"])).json()
    assert ended(engine, job["id"]).state == "done"
    path = f"/api/jobs/{job['id']}"
    seen = {name: client.get(path, headers=bearer(texts[name])).status_code for name in texts}
    assert seen == {"draw": 200, "read": 200, "admin": 200, "other": 404, "slow": 404}
    listed = client.get("/api/jobs", headers=bearer(texts["other"])).json()["jobs"]
    assert job["id"] not in [each["id"] for each in listed]
    assert client.get(f"{path}/events", headers=bearer(texts["other"])).status_code == 404
    assert client.get(f"{path}/events?leave=cancel", headers=bearer(texts["read"])).status_code == 404
    assert client.post(f"{path}/cancel", headers=bearer(texts["read"])).status_code == 403
    assert client.delete(path, headers=bearer(texts["other"])).status_code == 404
    assert client.delete(path, headers=bearer(texts["admin"])).status_code == 204


def test_a_picture_needs_a_key_that_sees_its_job(keyed: tuple[TestClient, dict[str, str]], engine: Engine):
    client, texts = keyed
    url = picture_of(client, engine, texts["draw"])
    for path in (url, f"{url}?width=32", f"{url}/metadata"):
        codes = {name: client.get(path, headers=bearer(texts[name])).status_code for name in texts}
        assert codes == {"draw": 200, "read": 200, "admin": 200, "other": 404, "slow": 404}
        for headers in ({}, bearer("wrong"), {"Cookie": "sanakit-1=x.9999999999.y"}):
            refused = client.get(path, headers=headers)
            assert (refused.status_code, refused.json()["error"]["type"]) == (401, "NoKeyError")
    response = client.get(url, headers=bearer(texts["draw"]))
    assert response.headers["cache-control"] == "private, no-cache"
    again = bearer(texts["other"]) | {"If-None-Match": response.headers["etag"]}
    assert client.get(url, headers=again).status_code == 404, "not even that it is there"


def test_a_session_shows_pictures_to_img_and_nothing_else(
    keyed: tuple[TestClient, dict[str, str]], engine: Engine, monkeypatch: pytest.MonkeyPatch
):
    client, texts = keyed
    url = picture_of(client, engine, texts["draw"])
    opened = client.post("/api/session", headers=bearer(texts["draw"]))
    cookie = opened.headers["set-cookie"]
    pair = cookie.partition(";")[0]
    assert opened.status_code == 204 and texts["draw"] not in cookie
    assert {"HttpOnly", "SameSite=strict", "Path=/api/images"} <= {part.strip() for part in cookie.split(";")}
    client.cookies.clear()
    theirs = (
        client.post("/api/session", headers=bearer(texts["other"])).headers["set-cookie"].partition(";")[0]
    )
    client.cookies.clear()
    forged = pair[:-1] + ("1" if pair.endswith("0") else "0")
    seen = {text: client.get(url, headers={"Cookie": text}).status_code
            for text in (pair, theirs, f"{theirs}; {pair}", forged, pair.replace(".", ".9", 1))}  # fmt: skip
    assert list(seen.values()) == [200, 404, 200, 401, 401]
    assert client.get("/api/jobs", headers={"Cookie": pair}).status_code == 401
    link = pair.partition("=")[2]
    assert client.get(f"{url}?token={link}").status_code == 401, "a cookie is no link"
    late = time.time() + 25 * 3600
    monkeypatch.setattr(time, "time", lambda: late)
    assert client.get(url, headers={"Cookie": pair}).status_code == 401, "it is over"


def test_a_removed_key_ends_its_session(engine: Engine, tmp_path: Path):
    app = create_app(engine, Settings())
    store = KeyStore(tmp_path)
    object.__setattr__(app.state.service, "keys", store)
    client = TestClient(app, base_url=HOST)
    (text, _), _ = (store.add(name, ["draw"]) for name in ("anna", "bert"))
    url = picture_of(client, engine, text)
    assert client.post("/api/session", headers=bearer(text)).status_code == 204
    assert client.get(url).status_code == 200, "by the cookie"
    store.remove("anna")
    assert client.get(url).status_code == 401


def test_a_link_shows_its_picture_for_an_hour(
    keyed: tuple[TestClient, dict[str, str]], engine: Engine, monkeypatch: pytest.MonkeyPatch
):
    client, texts = keyed
    order = {
        "prompt": "a cube",
        "size": "64x64",
        "response_format": "url",
        "steps": 1,
        "output_format": "webp",
    }
    answer = client.post("/v1/images/generations", json=order, headers=bearer(texts["draw"])).json()
    link = answer["data"][0]["url"]
    assert client.get(link).headers["content-type"] == "image/webp"
    other = picture_of(client, engine, texts["draw"])
    token = link.partition("token=")[2]
    assert client.get(f"{other}?token={token}").status_code == 401, "not for another picture"
    late = time.time() + 3601
    monkeypatch.setattr(time, "time", lambda: late)
    assert client.get(link).status_code == 401


def picture_of(client: TestClient, engine: Engine, key: str) -> str:
    """The address of a picture that was drawn with a key."""
    job = client.post("/api/jobs", json={"request": SMALL}, headers=bearer(key)).json()
    return f"/api/images/{ended(engine, job['id']).pictures[0].id}"


def test_who_only_reads_draws_nothing(keyed: tuple[TestClient, dict[str, str]]):
    client, texts = keyed
    for path, body in (("/api/jobs", {"request": SMALL}), ("/v1/images/generations", {"prompt": "x"}),
                       ("/sdapi/v1/txt2img", {"prompt": "x"})):  # fmt: skip
        response = client.post(path, json=body, headers=bearer(texts["read"]))
        assert response.status_code == 403, response.text
        assert "its scopes are read" in response.text
    error = client.post("/v1/images/generations", json={"prompt": "x"}).json()["error"]
    assert error["code"] == "invalid_api_key"


def test_a_key_that_asks_too_often_waits(keyed: tuple[TestClient, dict[str, str]]):
    client, texts = keyed
    grid = {"request": SMALL, "x": {"field": "seed", "values": [1, 2, 3]}}
    assert client.post("/api/grid", json=grid, headers=bearer(texts["slow"])).status_code == 429
    codes = []
    for _ in range(3):
        response = client.post("/api/jobs", json={"request": SMALL}, headers=bearer(texts["slow"]))
        codes.append(response.status_code)
    assert codes == [201, 201, 429]
    assert 1 <= int(response.headers["retry-after"]) <= 3600


def test_clients_of_the_a1111_tradition_send_a_key_as_their_password(
    keyed: tuple[TestClient, dict[str, str]],
):
    client, texts = keyed
    assert client.get("/sdapi/v1/options", auth=("anyone", texts["draw"])).status_code == 200
    assert client.get("/sdapi/v1/options", auth=("anyone", "wrong")).status_code == 401


def test_logs_know_keys_by_their_ids(
    keyed: tuple[TestClient, dict[str, str]], caplog: pytest.LogCaptureFixture
):
    client, texts = keyed
    with caplog.at_level("INFO", logger="sanakit.server"):
        client.get("/api/jobs?text=secret-words", headers=bearer(texts["draw"]) | {"X-Request-Id": "mine-1"})
    (record,) = [each for each in caplog.records if each.name == "sanakit.server.access"]
    assert len(record.key) == 16 and (record.path, record.status) == ("/api/jobs", 200)
    assert texts["draw"] not in json.dumps(record.__dict__, default=str)
    assert "secret-words" not in json.dumps(record.__dict__, default=str)
