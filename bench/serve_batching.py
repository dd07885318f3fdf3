"""Continuous batching against one at a time: `python -m bench.serve_batching [--requests 16] [--rounds 3] [--passes]`.

The server's engine draws the same requests twice per round: with a batch as large as the requests, and with a batch of
one. Nothing else differs: the same worker, prompts, decoding, PNG files and database. Both are warmed up first; the
figures are medians of the rounds. Where other programs run meanwhile, compare the seconds of the processor: those that
all threads of this process took. With --passes it times parts instead: a guided step of 1, 2, 4, ... pictures in one
forward pass, and the decoding of one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from sanakit.pipeline import ImageRequest, Model, load
from sanakit.pipeline.batching import BatchedDenoiser
from sanakit.pipeline.decoder import decode
from sanakit.pipeline.denoiser import Drawing, begin, plan_denoisers
from sanakit.pipeline.plan import make_plan
from sanakit.pipeline.prompt import encode_prompt
from sanakit.server import Engine, EngineConfig, JobSpec

PROMPTS = (
    "a red cube on grass at noon",
    "two blue spheres on sand at sunset",
    "a large green cone left of a small yellow cylinder on snow",
    "a purple pyramid on wood at night",
)


def requests(count: int, size: int, steps: int) -> list[ImageRequest]:
    """Requests that differ in prompt, seed, guidance and number of steps, `steps` on average."""
    spread = (0, -2, 2, 0)
    return [
        ImageRequest(
            prompt=PROMPTS[number % len(PROMPTS)], seed=number, width=size, height=size,
            steps=steps + spread[number % len(spread)], guidance=3.0 + number % 3,
        )
        for number in range(count)
    ]  # fmt: skip


def seconds(engine: Engine, wanted: list[ImageRequest]) -> tuple[float, list[float]]:
    """Seconds until all pictures are written, and those that each request took."""
    start = time.perf_counter()
    jobs = [engine.submit(JobSpec(model=engine.catalogue.default, request=each)) for each in wanted]
    for job in jobs:
        ended = list(engine.subscribe(job.id))[-1]
        assert ended.kind == "done", ended.message
    whole = time.perf_counter() - start
    found = [engine.get(job.id) for job in jobs]
    return whole, [(job.finished or 0.0) - job.created for job in found]


def measure(
    folder: Path, batch: int, wanted: list[ImageRequest], rounds: int, model: str
) -> dict[str, float]:
    """Medians of an engine with a batch of this size."""
    engine = Engine(EngineConfig(data=folder, models=(model,), batch=batch, groups=1))
    engine.start()
    try:
        seconds(engine, wanted[:2])
        before, worked = engine.stats, time.process_time()
        took = [seconds(engine, wanted) for _ in range(rounds)]
        after, worked = engine.stats, time.process_time() - worked
    finally:
        engine.stop()
    return {
        "seconds": statistics.median(whole for whole, _ in took),
        "pictures per second": len(wanted) / statistics.median(whole for whole, _ in took),
        "seconds of the processor": worked / rounds,
        "median latency": statistics.median(each for _, own in took for each in own),
        "worst latency": max(each for _, own in took for each in own),
        "seconds in the transformer": (after.forward_seconds - before.forward_seconds) / rounds,
        "pictures per pass": (after.rows - before.rows) / (after.forwards - before.forwards),
    }


def passes(name: str, wanted: list[ImageRequest]) -> None:
    """Print the least milliseconds of the processor per picture, for a step of so many together and for decoding."""
    model = load(name)
    shown = [_begun(model, request) for request in wanted]
    denoiser, count = BatchedDenoiser(model.parts.transformer), 1
    while count <= len(shown):
        inputs = [each for drawing in shown[:count] for each in drawing.inputs()]
        print(f"a step of {count}: {least(partial(denoiser.predict, inputs)) / count:.1f} ms per picture")
        count *= 2
    plan = make_plan(model.spec, wanted[0])
    latent = torch.randn(1, *plan.latent_shape, generator=torch.Generator().manual_seed(0))
    print(
        f"decoding: {least(lambda: decode(model.parts.autoencoder, latent, plan.decoded)):.1f} ms per picture"
    )


def _begun(model: Model, request: ImageRequest) -> Drawing:
    """A picture before its first step."""
    plan = make_plan(model.spec, request)
    states = encode_prompt(model.parts.text, model.spec, plan)
    denoisers = plan_denoisers(model.parts.transformer, states, plan)
    return begin(denoisers, plan, plan.seeds[0], torch.device("cpu"))


def least(work: Callable[[], object], tries: int = 8) -> float:
    """The least milliseconds of the processor, of all threads, that some work takes."""
    found = []
    for _ in range(tries + 1):  # the first packs weights and touches memory
        begun = time.process_time()
        work()
        found.append(1000 * (time.process_time() - begun))
    return min(found[1:])


def main() -> None:
    """Measure both, and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="toybox")
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--passes", action="store_true")
    given = parser.parse_args()
    wanted = requests(given.requests, given.size, given.steps)
    cores, threads = os.cpu_count(), torch.get_num_threads()
    print(f"{platform.machine()}, {cores} cores, {threads} threads, load average {os.getloadavg()[0]:.1f}")
    if given.passes:
        passes(given.model, wanted)
        return
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for batch in (1, given.requests):
            found[batch] = measure(Path(folder, str(batch)), batch, wanted, given.rounds, given.model)
            print(
                f"batch {batch}:", json.dumps({name: round(value, 3) for name, value in found[batch].items()})
            )
    alone, together = found[1], found[given.requests]
    for name in ("seconds", "seconds of the processor"):
        print(f"one at a time over together, {name}: {alone[name] / together[name]:.2f}")


if __name__ == "__main__":
    main()
