"""Many clients at one server, which is killed half-way: `python -m bench.serve_load [--clients 200] [--seconds 60]`.

Clients on the loopback ask for pictures of mixed sizes, steps and counts over the HTTP API, one job after the other,
and watch each job's events with previews. Half-way the server gets SIGKILL and is started again on the same data. Then
every job that was ever accepted is looked up. Checked, with exit code 1 for the first fault:

- each accepted job ends done, with exactly its pictures, or failed with a reason;
- the record in each picture's PNG is that of its job (prompt, size, steps) and of its seed, which no two jobs share;
- no picture belongs to two jobs;
- each refusal is 429 with a Retry-After of at least a second.

Reported: pictures per second, the time from acceptance to the first preview, and the server's memory.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import platform
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from tests.oracles.ports import free_port

SIZES = (64, 96, 128)
COLOURS = ("red", "green", "blue", "yellow", "white", "purple")
SHAPES = ("cube", "sphere", "cone", "cylinder")
ENDED = ("done", "failed", "cancelled")
GONE = (httpx.TransportError,)  # the server was killed, or is not back yet


@dataclass
class Report:
    """What clients saw. asked: the request of every accepted job."""

    asked: dict[str, dict[str, Any]] = field(default_factory=dict)
    pictures: dict[str, str] = field(default_factory=dict)
    first_previews: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    states: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Server:
    """`sanakit serve` in a process of its own, and its memory over time."""

    def __init__(self, data: Path, options: Sequence[str]) -> None:
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self._command = [sys.executable, "-m", "sanakit.cli", "serve", "--data", str(data), "--port", str(self.port),
                         "--logs", "off", "--drain", "0", *options]  # fmt: skip
        self.memory: list[list[float]] = []
        self.process = self._start()

    def _start(self) -> subprocess.Popen[str]:
        self.memory.append([])
        made = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        assert made.stdout is not None
        line = made.stdout.readline()
        assert self.address in line, f"the server said {line!r}"
        return made

    async def kill(self) -> None:
        """End it as a crash does, and start it again."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process = await asyncio.to_thread(self._start)

    def stop(self) -> int:
        """End it as Ctrl+C does; return its exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)

    def look(self) -> None:
        """Note its resident memory, in MiB."""
        try:
            lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
            self.memory[-1] += [int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")]
        except (OSError, IndexError):
            return


def request_of(number: int, dice: random.Random) -> dict[str, Any]:
    """A request whose seeds no other has."""
    return {
        "prompt": f"a {dice.choice(COLOURS)} {dice.choice(SHAPES)} on grass", "seed": 1000 * number,
        "width": dice.choice(SIZES), "height": dice.choice(SIZES), "steps": dice.randint(4, 12),
        "guidance": dice.choice((1.0, 3.0, 4.5)), "count": dice.choice((1, 1, 1, 2)),
        "solver": dice.choice(("dpm2", "euler")),
    }  # fmt: skip


async def client(server: Server, report: Report, numbers: Iterator[int], until: float) -> None:
    """Ask for one job after the other."""
    async with httpx.AsyncClient(base_url=server.address, timeout=300) as http:
        while time.monotonic() < until:
            number = next(numbers)
            asked = request_of(number, random.Random(number))
            try:
                accepted = await submit(http, report, asked, until)
                if accepted is not None:
                    await watch(http, report, accepted, time.monotonic())
            except GONE:
                await asyncio.sleep(0.5)


async def submit(http: httpx.AsyncClient, report: Report, asked: dict[str, Any], until: float) -> str | None:
    """Submit until it is accepted; None when time is over. Without an answer nothing was promised."""
    while time.monotonic() < until:
        answer = await http.post("/api/jobs", json={"request": asked})
        report.statuses[answer.status_code] += 1
        if answer.status_code == 201:
            job_id = str(answer.json()["id"])
            report.asked[job_id] = asked
            return job_id
        wait = answer.headers.get("retry-after", "")
        if answer.status_code != 429 or not wait.isdigit() or int(wait) < 1:
            report.faults.append(f"{answer.status_code} with Retry-After {wait!r}: {answer.text[:200]}")
            return None
        await asyncio.sleep(min(float(wait), max(0.0, until - time.monotonic())))
    return None


async def watch(http: httpx.AsyncClient, report: Report, job_id: str, accepted: float) -> None:
    """Listen to a job until it ends; note when its first preview came."""
    seen = False
    async with http.stream("GET", f"/api/jobs/{job_id}/events", params={"previews": "1"}) as events:
        async for line in events.aiter_lines():
            if not line.startswith("data: "):
                continue
            event = json.loads(line.removeprefix("data: "))
            if event["preview"] and not seen:
                seen = True
                report.first_previews.append(time.monotonic() - accepted)
            if event["job"]["state"] in ENDED:
                return


async def check(http: httpx.AsyncClient, report: Report, job_id: str, until: float) -> None:
    """Wait for the end of an accepted job, and compare its pictures with what was asked."""
    while (job := (await http.get(f"/api/jobs/{job_id}")).json())["state"] not in ENDED:
        if time.monotonic() > until:
            report.faults.append(f"{job_id} is still {job['state']}")
            return
        await asyncio.sleep(1)
    report.states[job["state"]] += 1
    asked = report.asked[job_id]
    if job["state"] == "failed":
        report.reasons[str(job["error"])] += 1
        report.faults += [] if job["error"] else [f"{job_id} failed without a reason"]
        return
    if job["state"] != "done" or len(job["pictures"]) != asked["count"]:
        report.faults.append(
            f"{job_id} is {job['state']} with {len(job['pictures'])} of {asked['count']} pictures"
        )
    for index, picture in enumerate(job["pictures"]):
        png = (await http.get(picture["url"])).content
        if report.pictures.setdefault(picture["id"], job_id) != job_id:
            report.faults.append(f"the picture {picture['id']} belongs to two jobs")
        wanted = asked | {"seed": asked["seed"] + index, "count": 1}
        report.faults += [f"{job_id}: {each}" for each in differences(png, wanted)]


def differences(png: bytes, wanted: dict[str, Any]) -> list[str]:
    """What a picture says of itself and was not asked for."""
    with Image.open(io.BytesIO(png)) as image:
        image.load()
        record, size = json.loads(image.info["sanakit"])["request"], image.size
    found = [
        f"{name} is {record[name]!r}, not {value!r}"
        for name, value in wanted.items()
        if record[name] != value
    ]
    return found + ([] if size == (wanted["width"], wanted["height"]) else [f"its size is {size}"])


async def load(server: Server, given: argparse.Namespace) -> Report:
    """Let clients ask, kill the server half-way, and look all accepted jobs up in the end."""
    report, begin = Report(), time.monotonic()
    until, numbers = begin + given.seconds, iter(range(1, 10**9))

    async def looks() -> None:
        while True:
            server.look()
            await asyncio.sleep(0.5)

    async def kills() -> None:
        await asyncio.sleep(given.seconds / 2)
        await server.kill()

    looking = asyncio.create_task(looks())
    clients = [client(server, report, numbers, until) for _ in range(given.clients)]
    await asyncio.gather(*clients, *([kills()] if given.kill else []))
    async with httpx.AsyncClient(base_url=server.address, timeout=60) as http:
        for job_id in list(report.asked):
            await check(http, report, job_id, until + given.patience)
    looking.cancel()
    report.seconds = time.monotonic() - begin
    return report


def tell(server: Server, report: Report) -> None:
    """Print the report."""
    seconds = report.seconds
    print(f"{platform.machine()}, {os.cpu_count()} cores; load average {os.getloadavg()[0]:.1f}")
    print(f"answers: {dict(report.statuses)}; jobs: {dict(report.states)}; reasons: {dict(report.reasons)}")
    print(
        f"{len(report.pictures)} pictures in {seconds:.0f} s, {len(report.pictures) / seconds:.1f} a second"
    )
    waits = sorted(report.first_previews)
    if waits:
        at = [waits[min(len(waits) - 1, int(len(waits) * share))] for share in (0.5, 0.95)]
        print(f"acceptance to first preview: median {at[0]:.2f} s, p95 {at[1]:.2f} s, of {len(waits)}")
    for number, life in enumerate(each for each in server.memory if len(each) > 12):
        third = len(life) // 3
        parts = [statistics.median(life[part * third : (part + 1) * third]) for part in range(3)]
        print(f"memory of life {number + 1}, MiB by thirds: {', '.join(f'{each:.0f}' for each in parts)}")
    print(f"faults: {len(report.faults)}")
    for fault in report.faults[:10]:
        print(" ", fault)


def main() -> None:
    """Run the load; exit with 1 if anything was lost, doubled or mixed up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--patience", type=float, default=180.0, help="seconds for what is left in the end")
    parser.add_argument("--queue", type=int, default=128)
    parser.add_argument("--kill", action=argparse.BooleanOptionalAction, default=True)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder), ["--queue", str(given.queue)])
        try:
            report = asyncio.run(load(server, given))
        finally:
            code = server.stop()
    tell(server, report)
    print(f"the server ended with {code}")
    sys.exit(1 if report.faults or code else 0)


if __name__ == "__main__":
    main()
