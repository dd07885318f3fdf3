"""A bounded sample of `python -m tests.server.fuzz N`, and of schemathesis on the OpenAPI document."""

from __future__ import annotations

import gc
import random
import socket
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.types import ASGIApp

from tests.fuzz.mutate import damage_bytes
from tests.server.fuzz import MARK, Answer, attack, attempts, opened_paths

_SAMPLE = 400


# starlette leaves the files of a form that ends in the middle to the collector, which then warns.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_malformed_requests_are_answered_by_sentences(full: ASGIApp) -> None:
    with opened_paths() as paths:
        statuses, faults = attack(full, _SAMPLE, seed=0)
    gc.collect()
    assert faults == []
    assert paths == []
    assert {200, 400, 403, 404, 422, 429} <= statuses.keys()  # the sample reaches what it is there to reach
    assert statuses.total() == _SAMPLE


def test_the_sample_sees_what_it_is_there_to_see(tmp_path: Path) -> None:
    bad = Answer(status=500, headers={"content-type": "text/html"}, body=b'Traceback:\n  File "x.py"')
    assert len(bad.faults()) == 7
    with opened_paths() as paths:
        (tmp_path / MARK).touch()
    assert len(paths) >= 1
    assert list(attempts(50, 3)) == list(attempts(50, 3)) != list(attempts(50, 4))


def test_bytes_that_are_no_http_leave_the_server_alive(address: str) -> None:
    place, rng = urlsplit(address), random.Random(0)
    head = b"POST /api/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    good = head + b"Content-Length: 2\r\n\r\n{}"
    for _ in range(60):
        with socket.create_connection((str(place.hostname), int(place.port or 0)), 10) as connection:
            connection.sendall(damage_bytes(good, rng))
            connection.shutdown(socket.SHUT_WR)
            first = connection.recv(4096).split(b"\r\n", 1)[0]
        assert not first or first.split(b" ")[1][:1] in (b"2", b"4"), first
    assert httpx.get(f"{address}/health").status_code == 200


def test_schemathesis_finds_no_fault_of_the_server(full: ASGIApp) -> None:
    pytest.importorskip("schemathesis", reason="needs the extra `fuzz`")
    from tests.server.schemas import examine

    calls, faults = examine(full, examples=2)
    assert faults == []
    assert calls > 40
