"""The configuration file of Ray Serve, on a cluster of this machine: `python -m bench.serve_deploy [--pictures N]`.

Starts a cluster of its own, deploys sanakit by `serve deploy` with one to two replicas, asks for pictures until there
are two, waits until one is left, and prints when that was. Checked, with exit code 1: every job ends done, each picture
is there once, with its seed in its record, and steps of a watched job bring previews. Needs the extras `serve`, `ray`.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.oracles.ports import free_port

PATIENCE = 600.0  # seconds for whatever is waited for
STEPS = 20
WATCHED_STEPS = 200
"""Of the job that is watched: as many as a server takes, for word of its watcher has to reach a replica meanwhile."""


def configuration(data: Path, port: int, batch: int) -> dict[str, Any]:
    """What `serve deploy` reads: the drawers scale within seconds, where Ray's own pace is minutes."""
    pace = {"min_replicas": 1, "max_replicas": 2, "target_ongoing_requests": batch, "upscale_delay_s": 3,
            "downscale_delay_s": 15}  # fmt: skip
    return {
        "proxy_location": "HeadOnly",
        "http_options": {"host": "127.0.0.1", "port": port},
        "applications": [
            {
                "name": "sanakit",
                "import_path": "sanakit.server.ray.deployment:application",
                "args": {
                    "data": str(data),
                    "models": ["toybox"],
                    "replicas": "1:2",
                    "batch": batch,
                    "threads": 1,
                },
                "deployments": [{"name": "drawer", "autoscaling_config": pace}],
            }
        ],
    }


class Cluster:
    """A head of Ray as a child of this process, and Ray Serve's own command line."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._starts = folder, 0
        self._bin = Path(sys.executable).parent
        # The dashboard, which takes deployments, asks for a token; and Ray gives up a start after 30 and 60 s.
        self._environment = os.environ | {
            "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(24),
            "RAY_raylet_start_wait_time_s": f"{PATIENCE:.0f}", "RAY_DASHBOARD_STARTUP_TIMEOUT_S": f"{PATIENCE:.0f}",
        }  # fmt: skip
        self.start()

    def start(self) -> None:
        """Start the head, on ports and in a folder of its own."""
        self._starts += 1
        self._log = self._folder / f"ray-{self._starts}.log"
        self._session = self._folder / f"ray-{self._starts}"
        self.dashboard = f"http://127.0.0.1:{free_port()}"
        ports = {"port": free_port(), "dashboard-port": self.dashboard.rpartition(":")[2]}
        others = ("dashboard-agent-listen-port", "ray-client-server-port", "metrics-export-port")
        options = [
            f"--{name}={port}" for name, port in (ports | {name: free_port() for name in others}).items()
        ]
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [self._bin / "ray", "start", "--head", "--block", "--num-cpus=2", "--disable-usage-stats",
                 "--node-ip-address=127.0.0.1", f"--temp-dir={self._session}", *options],
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True, env=self._environment,
            )  # fmt: skip

    def wait(self) -> None:
        """Wait until the head is up: by its own words, for every command of Ray would take seconds from it.

        It is started anew if its node ends: Ray 2.60 gives the agents of a node 15 s, which no setting changes, and on
        a busy machine they take longer; the head would then wait until it gives up.
        """
        for _ in waiting("the cluster"):
            told = self._log.read_text()
            assert self.process.poll() is None, told
            if "Ray runtime started" in told:
                return
            if self._has_lost_its_node():
                print("the agents of Ray took longer than it lets them: once more", flush=True)
                self.stop()
                self.start()

    def _has_lost_its_node(self) -> bool:
        try:
            told = (self._session / "session_latest/logs/raylet.err").read_text()
        except OSError:
            return False
        return "Timed out waiting for file" in told

    def serve(self, *words: str) -> str:
        """What `serve` prints."""
        command = [str(self._bin / "serve"), words[0], "-a", self.dashboard, *words[1:]]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=PATIENCE, env=self._environment
        )
        return done.stdout

    def deploy(self, config: dict[str, Any], folder: Path) -> None:
        """Deploy a configuration, once the cluster is up, and wait until it runs."""
        path = folder / "serve.yaml"
        path.write_text(yaml.safe_dump(config))
        self.wait()
        self.serve("deploy", str(path))
        for _ in waiting("the application"):
            status = self.status()
            assert status["status"] != "DEPLOY_FAILED", status["message"]
            if status["status"] == "RUNNING":
                return

    def status(self) -> dict[str, Any]:
        """That of the application."""
        found: dict[str, Any] = yaml.safe_load(self.serve("status"))["applications"].get(
            "sanakit", {"status": "none"}
        )
        return found

    def replicas(self) -> int:
        """How many draw."""
        states = self.status()["deployments"]["drawer"]["replica_states"]
        return int(states.get("RUNNING", 0))

    def stop(self) -> None:
        """End the cluster with all its processes."""
        self.process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(60)
        with suppress(ProcessLookupError):  # what the command left behind
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def waiting(what: str) -> Iterator[float]:
    """Yield the seconds that have passed, once a second. Raises TimeoutError."""
    begun = time.monotonic()
    while (passed := time.monotonic() - begun) < PATIENCE:
        yield passed
        time.sleep(1)
    raise TimeoutError(f"{what} after {PATIENCE:.0f} s")


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster during the block."""
    made = Cluster(folder)
    try:
        yield made
    finally:
        made.stop()


def previews_of(http: httpx.Client, job: str) -> int:
    """Listen to a job to its end, and return how many steps brought a preview."""
    found = 0
    with http.stream("GET", f"/api/jobs/{job}/events?previews=1") as response:
        for line in response.iter_lines():
            if line.startswith("data: "):
                found += json.loads(line.removeprefix("data: "))["preview"] is not None
    return found


def draw(http: httpx.Client, cluster: Cluster, pictures: int) -> None:
    """Ask for pictures until two replicas draw, and look at what came."""

    def ask(seed: int, steps: int = STEPS) -> str:
        request = {"prompt": "a red cube on snow", "steps": steps, "seed": seed}
        return str(http.post("/api/jobs", json={"request": request}).raise_for_status().json()["id"])

    seeds = iter(range(10**6))
    jobs = {ask(seed): seed for seed in (next(seeds) for _ in range(pictures))}
    for passed in waiting("a second replica"):
        if cluster.replicas() == 2:
            print(f"two replicas after {passed:.0f} s")
            break
        running = [
            job for job in jobs if http.get(f"/api/jobs/{job}").json()["state"] in ("queued", "running")
        ]
        jobs |= {ask(seed): seed for seed in (next(seeds) for _ in range(pictures - len(running)))}
    previews = previews_of(http, ask(next(seeds), WATCHED_STEPS))
    assert previews, "a watched job has previews"
    seen = set[str]()
    for job, seed in jobs.items():
        previews_of(http, job)
        ended = http.get(f"/api/jobs/{job}").json()
        assert ended["state"] == "done", ended["error"]
        (picture,) = ended["pictures"]
        record = http.get(f"{picture['url']}/metadata").json()
        assert record["request"]["seed"] == picture["seed"] == seed
        seen.add(picture["id"])
    assert len(seen) == len(jobs)
    print(
        f"{len(jobs)} pictures, each there once with its seed; {previews} previews of the job that was watched"
    )


def main() -> None:
    """Deploy, draw, and wait until the second replica has gone."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=8, help="that wait or are drawn at a time")
    parser.add_argument("--batch", type=int, default=2)
    given = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp")))
        ray = stack.enter_context(cluster(folder))
        port = free_port()
        begun = time.monotonic()
        ray.deploy(configuration(folder / "data", port, given.batch), folder)
        print(f"deployed after {time.monotonic() - begun:.0f} s, with {ray.replicas()} replica")
        http = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE))
        draw(http, ray, given.pictures)
        for passed in waiting("one replica"):
            if ray.replicas() == 1:
                print(f"one replica {passed:.0f} s after the last picture")
                break


if __name__ == "__main__":
    main()
