"""`sanakit serve --ray`: one command, a local cluster with two replicas, of which one is killed while it draws."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from sanakit.base.errors import ConfigError, SanakitError
from sanakit.pipeline.png import decode_record
from sanakit.server import EngineConfig
from sanakit.server.ray import deployment
from sanakit.server.ray.scale import Scale
from sanakit.server.settings import Settings
from tests.cli.running import hear_interrupts
from tests.oracles.tiny import Folders, Recipe
from tests.pipeline.drawing import open_model
from tests.server.calling import opened
from tests.server.engines import ask
from tests.server.test_engine import differ

pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason='Ray is optional: pip install "sanakit[ray]"'),
    pytest.mark.skipif(not Path("/proc").is_dir(), reason="replicas are found in /proc"),
]

REQUEST = {"prompt": "a red cube", "width": 64, "height": 64, "steps": 2}
SECONDS = 120.0
COUNT = 12


class Served:
    """A server on Ray. process: the command. data: its folder."""

    def __init__(self, process: subprocess.Popen[str], address: str, data: Path) -> None:
        self.process, self.data = process, data
        self.http = httpx.Client(base_url=address, timeout=SECONDS)

    def submit(self, **fields: Any) -> str:
        response = self.http.post("/api/jobs", json={"request": REQUEST | fields})
        assert response.status_code == 201, response.text
        return str(response.json()["id"])

    def events(self, job: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """The events of a job, as they come: their kinds and data."""
        kind = ""
        with self.http.stream("GET", f"/api/jobs/{job}/events?previews=1") as response:
            for line in response.iter_lines():
                name, _, value = line.partition(": ")
                if name == "event":
                    kind = value
                elif name == "data":
                    yield kind, json.loads(value)

    def ended(self, job: str) -> dict[str, Any]:
        found: dict[str, Any] = [*self.events(job)][-1][1]["job"]
        return found

    def replicas(self) -> list[int]:
        """The processes that draw for this server; Ray names a process by what it runs."""
        found = []
        for folder in Path("/proc").iterdir():
            try:
                named = (
                    folder.name.isdigit()
                    and b"ServeReplica:sanakit:drawer" in (folder / "cmdline").read_bytes()
                )
                if named and self.process.pid in ancestors(int(folder.name)):
                    found.append(int(folder.name))
            except OSError:
                continue
        return found


def ancestors(pid: int) -> list[int]:
    """The processes above one."""
    found = []
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        found.append(pid)
    return found


@pytest.fixture(scope="module")
def folder(tiny: Folders) -> Path:
    return tiny(Recipe(sample_size=2))


@pytest.fixture(scope="module")
def served(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    data = tmp_path_factory.mktemp("ray")
    command = (sys.executable, "-m", "sanakit.cli", "serve", "--ray", "--replicas", "2", "--batch", "8", "--model",
               str(folder), "--port", "0", "--device", "cpu", "--dtype", "fp32", "--data", str(data), "--threads", "1",
               "--drain", "0")  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hear_interrupts
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.fullmatch(r"sanakit serves at (http://127\.0\.0\.1:\d+)\n", line)
        assert found, line + process.communicate()[1]
        server = Served(process, found[1], data)
        yield server
        server.http.close()
    finally:
        process.kill()
        process.communicate()


def test_a_killed_replica_loses_nothing_and_nothing_is_drawn_twice(served: Served, folder: Path) -> None:
    before = served.replicas()
    assert len(before) == 2
    job = served.submit(count=COUNT, seed=5, steps=60)
    told, previews, killed = list[tuple[str, str]](), 0, False
    for kind, data in served.events(job):
        told.append((kind, data["message"] or ""))
        previews += data["preview"] is not None
        if not killed and data["job"]["step"] >= 2 * COUNT:
            os.kill(before[0], signal.SIGKILL)
            killed = True
    assert killed and told[-1] == ("done", "") and previews
    assert any(kind == "note" and "it begins anew" in message for kind, message in told), (
        "it drew some of them"
    )
    pictures = served.http.get(f"/api/jobs/{job}").json()["pictures"]
    assert [each["index"] for each in pictures] == list(range(COUNT))
    files = {each["seed"]: served.http.get(each["url"]).content for each in pictures}
    assert list(files) == list(range(5, 5 + COUNT))
    assert len(list(served.data.glob("pictures/??/*.png"))) == COUNT, "each was written once"
    model = open_model(folder)
    for seed, content in files.items():
        assert decode_record(content, "picture").request.seed == seed
        if seed in (5, 16):
            (alone,) = model.images(ask(seed=seed, steps=60))
            assert differ(opened(content), alone) <= 1


def test_who_begins_to_watch_while_a_picture_is_drawn_sees_it_come(served: Served) -> None:
    long = {"count": 16, "steps": 200, "width": 256, "height": 256}
    job, until = served.submit(**long), time.monotonic() + SECONDS
    while served.http.get(f"/api/jobs/{job}").json()["step"] < 1 and time.monotonic() < until:
        time.sleep(0.05)
    seen = False
    for _, data in served.events(job):
        if data["preview"] and not seen:
            seen = True
            served.http.post(f"/api/jobs/{job}/cancel")
    assert seen


def test_a_cancelled_job_ends_and_its_places_are_free(served: Served) -> None:
    job = served.submit(count=16, steps=200)
    for kind, data in served.events(job):
        if kind == "step" and data["job"]["step"] > 0:
            assert served.http.post(f"/api/jobs/{job}/cancel").json()["state"] == "cancelled"
    assert kind == "cancelled"
    assert served.ended(served.submit(count=2))["state"] == "done"
    metrics = served.http.get("/metrics").text
    assert re.search(r"^sanakit_pictures_drawing 0", metrics, re.MULTILINE), metrics


def test_what_a_replica_can_not_draw_is_told(served: Served) -> None:
    found = served.ended(served.submit(prompt="red " * 400))
    assert found["state"] == "failed" and "the prompt is too long" in found["error"]
    assert served.http.post("/api/jobs", json={"request": REQUEST | {"steps": 900}}).status_code == 422


def test_it_ends_with_its_signal_and_keeps_what_waits(served: Served) -> None:
    until = time.monotonic() + SECONDS
    while len(served.replicas()) < 2 and time.monotonic() < until:
        time.sleep(0.2)
    assert len(served.replicas()) == 2, "Ray replaced the one that was killed"
    served.submit(count=16, steps=200)
    served.process.send_signal(signal.SIGTERM)
    _, errors = served.process.communicate(timeout=SECONDS)
    assert served.process.returncode == 0 and "1 job waits for the next start" in errors, errors


def test_replicas_are_told_who_watches() -> None:
    told = list[tuple[str, set[str]]]()

    class Answers:
        """As Ray Serve's: nobody is called before somebody asks for them."""

        def __init__(self, *call: Any) -> None:
            self.call = call

        def results(self, timeout_s: float) -> None:
            assert timeout_s > 0
            told.append(self.call)  # type: ignore[arg-type]

    deployment._Replicas(SimpleNamespace(broadcast=Answers), places=2).watch({"a"})
    assert told == [("watch", {"a"})]


@pytest.mark.filterwarnings("ignore")  # of Ray, as it is imported
@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({}, "args: data: field required"),
        ({"data": "x", "colour": "red"}, "args: colour: extra inputs are not permitted"),
        ({"data": "x", "replicas": "4:1"}, "N or MIN:MAX"),
        ({"data": "x", "host": "127.0.0.1"}, "args: host: extra inputs are not permitted"),
        (
            {"data": "x", "keep_pictures": 0},
            "args: keep_pictures: input should be greater than or equal to 1",
        ),
    ],
)
def test_bad_arguments_of_serve_deploy_are_said(args: dict[str, Any], words: str) -> None:
    from sanakit.server.ray.deployment import application

    with pytest.raises(ConfigError, match=words):
        application(args)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("address", "tries"), [(None, 3), ("10.0.0.1:6379", 1)])
def test_a_cluster_that_does_not_start_is_tried_again_and_then_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str | None, tries: int
) -> None:
    import ray

    from sanakit.server.ray.cluster import serve_on_ray

    seen = list[dict[str, Any]]()

    def init(**options: Any) -> None:
        seen.append(options)
        raise Exception("The current node timed out during startup.\nThis could happen because ...")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address is not None:
        monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(SanakitError, match=r"no cluster of Ray can be \w.*: The current node .* startup$"):
        serve_on_ray(EngineConfig(data=tmp_path), Settings(port=0), Scale(), print)
    assert len(seen) == tries and ("num_cpus" in seen[0]) == (address is None)


@pytest.mark.filterwarnings("ignore")
def test_the_arguments_of_serve_deploy_reach_the_deployments(tmp_path: Path) -> None:
    from ray import serve

    from sanakit.server.ray.deployment import Args, application

    args = Args.model_validate(
        {"data": str(tmp_path), "models": ["one", "two"], "replicas": "1:4", "batch": 2, "keep_days": 7}
    )
    config, settings, scale = args.read()
    assert (config.data, config.models, config.batch) == (tmp_path, ("one", "two"), 2)
    assert (config.keep_days, settings.rate) == (7, None) and (scale.least, scale.most) == (1, 4)
    assert isinstance(application({"data": str(tmp_path), "replicas": "1:4"}), serve.Application)


@pytest.mark.filterwarnings("ignore")
def test_whether_strangers_reach_it_is_what_serve_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Serve's own default is every address: without a key the application does not start there."""
    from ray.serve import context

    from sanakit.server.ray.deployment import Args, _builder

    listening = SimpleNamespace(http_config=SimpleNamespace(host="0.0.0.0", port=8123))
    monkeypatch.setattr(context, "_get_global_client", lambda: listening)
    config, settings, _ = Args(data=tmp_path).read()
    with pytest.raises(ConfigError, match="0.0.0.0 lets other machines draw here, and there is no key"):
        _builder(config, settings, 1)()
