"""Clients of all three APIs at once: each gets the picture that it asked for."""

from __future__ import annotations

import base64
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai

from sanakit.pipeline.png import decode_record
from sanakit.pipeline.request import ImageRequest

SIZES = ((64, 64), (64, 96), (32, 32))


def fields(seed: int) -> dict:
    """A request of its own for every seed."""
    width, height = SIZES[seed % len(SIZES)]
    return {
        "prompt": f"a cube, number {seed}",
        "width": width,
        "height": height,
        "steps": 1 + seed % 4,
        "seed": seed,
    }


def by_jobs(address: str, seed: int) -> bytes:
    job = httpx.post(f"{address}/api/jobs", json={"request": fields(seed)}, timeout=60).json()
    httpx.get(f"{address}/api/jobs/{job['id']}/events", timeout=60)
    picture = httpx.get(f"{address}/api/jobs/{job['id']}", timeout=60).json()["pictures"][0]
    return httpx.get(address + picture["url"], timeout=60).content


def by_openai(address: str, seed: int) -> bytes:
    given = fields(seed)
    size, own = f"{given['width']}x{given['height']}", {"seed": seed, "steps": given["steps"]}
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        result = client.images.generate(prompt=given["prompt"], size=size, extra_body=own)
    return base64.b64decode(result.data[0].b64_json)


def by_a1111(address: str, seed: int) -> bytes:
    answer = httpx.post(f"{address}/sdapi/v1/txt2img", json=fields(seed), timeout=60)
    return base64.b64decode(answer.json()["images"][0])


def test_nobody_gets_the_picture_of_another(address: str) -> None:
    clients: tuple[Callable[[str, int], bytes], ...] = (by_jobs, by_openai, by_a1111)
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda seed: clients[seed % 3](address, seed), range(12)))
    requests = [decode_record(answer, "x").request for answer in answers]
    assert [ImageRequest(**fields(seed)).prompt for seed in range(12)] == [each.prompt for each in requests]
    for seed, request in enumerate(requests):
        found = {name: getattr(request, name) for name in fields(seed)}
        assert found == fields(seed)
