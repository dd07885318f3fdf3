"""Small requests for a tiny model, and waiting for what becomes of them."""

from __future__ import annotations

import io
import time
from typing import Any

from PIL import Image

from sanakit.server import Engine, Job

HOST = "http://127.0.0.1:8000"
SMALL = {"prompt": "a red cube", "width": 64, "height": 64, "steps": 2}
"""A request that is drawn within a moment."""

LONG = {**SMALL, "width": 512, "height": 512, "steps": 400}
"""One that is still drawn when a test looks at it."""


def ended(engine: Engine, job_id: str, seconds: float = 60) -> Job:
    """The job when it has ended."""
    until = time.monotonic() + seconds
    while not (job := engine.get(job_id)).is_finished:
        assert time.monotonic() < until, f"the job is {job.state} after {seconds} s"
        time.sleep(0.02)
    return job


def draw(client: Any, engine: Engine, **fields: Any) -> dict[str, Any]:
    """Ask for a job by the native API, and return it when it has ended."""
    response = client.post("/api/jobs", json={"request": SMALL | fields})
    assert response.status_code == 201, response.text
    ended(engine, response.json()["id"])
    found: dict[str, Any] = client.get(f"/api/jobs/{response.json()['id']}").json()
    return found


def png(colour: str = "red", size: tuple[int, int] = (64, 64), mode: str = "RGB") -> bytes:
    """A picture of one colour."""
    buffer = io.BytesIO()
    Image.new(mode, size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def opened(data: bytes) -> Image.Image:
    """A picture's pixels."""
    image = Image.open(io.BytesIO(data))
    image.load()
    return image
