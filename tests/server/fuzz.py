"""Malformed requests by the thousand: `python -m tests.server.fuzz N` sends N of them to the application.

Whatever comes in, no response is a fault of the server, none holds a traceback, each carries the security headers, and
no path that a request names is ever opened. The engine isn't started and its queue is full: what happens to be a good
request is answered with 429, and nothing is drawn.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import logging
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from starlette.types import ASGIApp, Message

from sanakit.pipeline.request import ImageRequest
from sanakit.server import Engine, EngineConfig, JobSpec
from sanakit.server.app import create_app
from sanakit.server.settings import Settings
from tests.fuzz.mutate import ODD, damage_bytes, damage_json
from tests.server.calling import SMALL, png

MARK = "sanakit-fuzz-path"
"""A part of every path that a request names; no file of such a name may be opened."""

PATHS = (
    f"/etc/{MARK}",
    f"../../{MARK}",
    f"..%2f..%2f{MARK}",
    f"\\\\host\\{MARK}",
    f"file:///{MARK}",
    f"{MARK}\x00.png",
)
BOUNDARY = "x-bound"

_PICTURE = base64.b64encode(png(size=(32, 32))).decode()
_REQUEST = {**SMALL, "seed": 3, "guidance": 2.0, "negative": "snow", "solver": "dpm2", "cfg_interval": [0, 1]}
_HEADERS = (
    ("authorization", ("Bearer", "Bearer \xff", "Basic Og==", "Basic !!!", "Digest x", "Bearer " + "a" * 5000)),
    ("content-type", ("text/plain", "application/json; charset=utf-7", "application/x-www-form-urlencoded", "", ";",
                      "a/b/c",
                      "multipart/form-data", "multipart/form-data; boundary=" + "b" * 300, "application/problem+json")),
    ("content-length", ("-1", "99999999999999999999", "1e9", "0", "\xb2")),
    ("host", ("", "[", "evil.example", "127.0.0.1:99999999", "\x00", "a" * 3000)),
    ("origin", ("null", "http://[", "http://evil.example", "//", "\xff")),
    ("x-request-id", ("a" * 5000, "\x1b[31m", "a\x00b", "../../" + MARK)),
    ("if-none-match", ("*", '"', "W/" + '"' * 2000)),
    ("cookie", ("sanakit-=", "sanakit-0=a.1.b", "sanakit-0=..", "sanakit-0=\xff.\xb2.c", ";" * 500, "a=" + "b" * 5000)),
    ("expect", ("100-continue",)), ("transfer-encoding", ("chunked, gzip",)), ("range", ("bytes=0-,-1",)),
    ("accept", ("\xff/*",)), ("cookie", ("a=" * 2000,)), ("traceparent", ("00-zz-zz-zz", "00-" + "f" * 60)),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A request as its bytes; `path` and `query` are as a client wrote them."""

    method: str
    path: str
    query: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    def faults(self) -> list[str]:
        """What must not be."""
        found = [f"status {self.status}"] if self.status >= 500 else []
        text = self.body.decode("utf-8", "replace")
        found += [f"it holds {word!r}" for word in ("Traceback", 'File "', "site-packages") if word in text]
        missing = {"content-security-policy", "x-content-type-options", "x-request-id"} - self.headers.keys()
        found += [f"no header {name}" for name in missing]
        if self.status == 429 and "retry-after" not in self.headers:
            found.append("no Retry-After")
        if self.status >= 400 and "application/json" not in self.headers.get("content-type", ""):
            found.append("no JSON")
        return found


def _posted(path: str, body: object) -> Attempt:
    return Attempt(
        method="POST",
        path=path,
        headers=(("content-type", "application/json"),),
        body=json.dumps(body).encode(),
    )


def _form(fields: dict[str, tuple[str, bytes]]) -> bytes:
    """A multipart form: name -> file name ("" for a text) and content."""
    parts = []
    for name, (file, content) in fields.items():
        named = f'; filename="{file}"\r\nContent-Type: image/png' if file else ""
        parts.append(
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'.encode("latin-1")
            + content
        )
    return b"\r\n".join([*parts, f"--{BOUNDARY}--\r\n".encode()])


def _edit(fields: dict[str, tuple[str, bytes]]) -> Attempt:
    kind = ("content-type", f"multipart/form-data; boundary={BOUNDARY}")
    return Attempt(method="POST", path="/v1/images/edits", headers=(kind,), body=_form(fields))


GOOD: tuple[Attempt, ...] = (
    _posted("/api/jobs", {"request": _REQUEST, "live": "t", "inputs": None}),
    _posted("/api/jobs", {"request": {"prompt": "a cube", "strength": 0.5},
                          "inputs": {"source": _PICTURE, "mask": _PICTURE}}),
    _posted("/api/jobs", {"request": {**SMALL, "loras": [{"name": PATHS[0], "weight": 0.5, "blocks": [[0, 1, 0.5]]}],
                                      "regions": [{"box": [0, 0, 0.5, 1], "text": "a cone"}]}}),
    _posted("/api/jobs", {"request": {**SMALL, "controls": [{"name": PATHS[1], "picture": _PICTURE,
                                                             "annotator": "canny"}]}}),
    _posted("/api/grid", {"request": _REQUEST, "x": {"field": "steps", "values": [1, 2]},
                          "y": {"field": "seed", "values": [1, 2]}}),
    replace(_posted("/api/read", None), headers=(("content-type", "image/png"),), body=png()),
    _posted("/v1/images/generations", {"prompt": "a cube", "n": 2, "size": "64x64", "quality": "low", "stream": True,
                                       "output_format": "webp", "output_compression": 50, "partial_images": 1,
                                       "seed": 1}),
    _edit({"image": ("a.png", png()), "mask": ("m.png", png(mode="RGBA")), "prompt": ("", b"a cube"), "n": ("", b"1")}),
    _edit({"image": (PATHS[0], png()), "prompt": ("", b"x"), "angles[]": ("", b"1.5")}),
    _posted("/sdapi/v1/txt2img", {"prompt": "a cube <lora:x:0.5>", "steps": 2, "width": 64, "height": 64, "seed": -1,
                                  "sampler_name": "Euler a", "override_settings": {"sd_model_checkpoint": PATHS[1]},
                                  "enable_hr": True}),
    _posted("/sdapi/v1/img2img", {"prompt": "a cube", "init_images": [_PICTURE], "mask": _PICTURE, "steps": 2,
                                  "denoising_strength": 0.5, "inpainting_mask_invert": 1}),
    _posted("/sdapi/v1/options", {"sd_model_checkpoint": PATHS[0]}),
    _posted("/sdapi/v1/interrupt", {}),
    *(Attempt(method="GET", path=path, query=query) for path, query in (
        ("/api/jobs", "state=done&text=cube&before=abc&limit=5"), ("/api/jobs/0123456789abcdef", ""),
        ("/api/jobs/0123/events", "previews=1&leave=cancel"),
        ("/api/images/0123456789abcdef0123456789abcdef", "width=64"),
        ("/api/images/0123456789abcdef0123456789abcdef", "token=0123456789abcdef0123456789abcdef.9999999999.ab"),
        ("/api/jobs/0123/inputs/" + "ab" * 32, ""), ("/api/images/x/metadata", ""),
        ("/api/capabilities", ""), ("/v1/models/a/b", ""), ("/page/main.js", ""),
        ("/sdapi/v1/progress", "skip_current_image=true"), ("/metrics", ""), ("/", ""))),
    Attempt(method="DELETE", path="/api/jobs/0123456789abcdef"),
    Attempt(method="POST", path="/api/jobs/0123456789abcdef/cancel"),
    _posted("/api/jobs/0123456789abcdef/recreate", {"request": {"seed": 1, "count": 2}}),
    Attempt(method="POST", path="/api/session"),
)  # fmt: skip
"""Good requests to every route that reads something; each is damaged."""


def attempts(count: int, seed: int) -> Iterator[Attempt]:
    """Damage good requests: bodies, headers, paths, queries and methods."""
    rng = random.Random(seed)
    for number in range(count):
        one = GOOD[number % len(GOOD)]
        if one.body and rng.random() < 0.8:
            one = replace(one, body=_damaged(one.body, rng))
        if not one.body or rng.random() < 0.2:
            one = replace(one, path=_odd_path(one.path, rng), query=_odd_query(one.query, rng))
        if rng.random() < 0.25:
            name, values = rng.choice(_HEADERS)
            kept = tuple(pair for pair in one.headers if pair[0] != name)
            one = replace(one, headers=(*kept, (name, rng.choice(values))))
        if rng.random() < 0.05:
            one = replace(
                one, method=rng.choice(("GET", "POST", "PUT", "PATCH", "HEAD", "OPTIONS", "TRACE", "FOO", ""))
            )
        yield one


def _damaged(body: bytes, rng: random.Random) -> bytes:
    if body[:1] != b"{":
        return damage_bytes(body, rng)
    if rng.random() < 0.1:
        return rng.choice(
            (
                b"",
                b"null",
                b"[]",
                b'"x"',
                b"[" * 100_000,
                b'{"a":' * 50_000,
                b"\xff\xfe{}",
                b"9" * 5000,
                b"NaN",
            )
        )
    text = damage_json(body, rng)
    if rng.random() < 0.2:
        text = text.replace(b'"a cube"', json.dumps(rng.choice(PATHS)).encode(), 1)
    return text


def _odd_path(path: str, rng: random.Random) -> str:
    if rng.random() < 0.5:
        return path
    odd = rng.choice((*PATHS, "\udcff", "%00", "%ff", "a" * 3000, "..", "//", "\x1b[0m", "é", "0" * 32))
    return path.rsplit("/", 1)[0] + "/" + odd if rng.random() < 0.7 else path + odd


def _odd_query(query: str, rng: random.Random) -> str:
    name = rng.choice(
        ("limit", "state", "text", "before", "previews", "leave", "width", "format", "quality", "x")
    )
    value = rng.choice((*map(str, ODD[:20]), *PATHS, "%00", "%ff", "%", "&&&", "=", "a" * 3000))
    return rng.choice((query, f"{name}={value}", f"{query}&{name}={value}", f"{name}[]={value}&{name}=1"))


async def send(app: ASGIApp, attempt: Attempt) -> Answer:
    """Call an application as a server would, with the bytes of a request."""
    raw = attempt.path.encode("utf-8", "surrogateescape")
    defaults = {"host": "127.0.0.1:8000"} | dict(attempt.headers)
    scope: dict[str, Any] = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "scheme": "http",
        "method": attempt.method, "path": unquote(attempt.path.encode("utf-8", "replace").decode()), "raw_path": raw,
        "query_string": attempt.query.encode("utf-8", "surrogateescape"), "root_path": "", "state": {},
        "headers": [(name.encode(), value.encode("latin-1", "replace")) for name, value in defaults.items()],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8000),
    }  # fmt: skip
    waiting: list[Message] = [{"type": "http.request", "body": attempt.body, "more_body": False}]
    sent: list[Message] = []

    async def receive() -> Message:
        return waiting.pop(0) if waiting else await asyncio.Event().wait()  # type: ignore[return-value]

    async def keep(message: Message) -> None:
        sent.append(message)

    await asyncio.wait_for(app(scope, receive, keep), 60)
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in sent[0]["headers"]}
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return Answer(status=sent[0]["status"], headers=headers, body=body)


@contextmanager
def full_queue(model: str, data: Path) -> Iterator[ASGIApp]:
    """An application whose engine draws nothing and takes no more jobs."""
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # as `set_up_logs` does
    engine = Engine(EngineConfig(data=data, models=(model,), device="cpu", dtype="fp32", queue=1))
    try:
        engine.submit(JobSpec(model=model, request=ImageRequest(**SMALL)))
        yield create_app(engine, Settings(body=1 << 20, hosts=("testserver",)))  # as schemathesis calls it
    finally:
        engine.stop()


_opened: list[str] = []
_watching = False


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching and event in ("open", "os.listdir", "os.scandir", "os.remove", "os.rename", "os.mkdir"):
        _opened.extend(str(one) for one in arguments[:2] if MARK in str(one))


@contextmanager
def opened_paths() -> Iterator[list[str]]:
    """The paths with `MARK` that this process opens meanwhile."""
    global _watching
    if not _opened and not getattr(_hear, "added", False):
        sys.addaudithook(_hear)  # for good: a hook can't be taken away
        _hear.added = True  # type: ignore[attr-defined]
    _opened.clear()
    _watching = True
    try:
        yield _opened
    finally:
        _watching = False


def attack(app: ASGIApp, count: int, seed: int) -> tuple[Counter[int], list[str]]:
    """Send many attempts; return how often each status came, and what must not be, with the attempt."""

    async def run() -> tuple[Counter[int], list[str]]:
        statuses, faults = Counter[int](), list[str]()
        for attempt in attempts(count, seed):
            answer = await send(app, attempt)
            statuses[answer.status] += 1
            faults += [f"{fault}: {attempt!r:.400}" for fault in answer.faults()]
        return statuses, faults

    return asyncio.run(run())


def main() -> int:
    """Attack an application over Toybox."""
    parser = argparse.ArgumentParser(prog="python -m tests.server.fuzz", description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=2000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as data,
        full_queue("toybox", Path(data)) as app,
        opened_paths() as paths,
    ):
        statuses, faults = attack(app, given.count, given.seed)
    print(
        f"{given.count} malformed requests: {dict(sorted(statuses.items()))}, {len(faults)} faults, "
        f"{len(paths)} paths opened"
    )
    for line in faults[:20]:
        print(line)
    return 1 if faults or paths else 0


if __name__ == "__main__":
    raise SystemExit(main())
