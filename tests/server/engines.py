"""Engines for tests: made, started and stopped in a `with` block, and requests that take milliseconds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sanakit.pipeline import ImageRequest
from sanakit.pipeline.memory import available_bytes
from sanakit.server import Engine, EngineConfig, Job, JobEvent, JobSpec
from sanakit.server.engine.models import Free

SECONDS = 60.0
"""After which a test gives up to wait; nothing here takes a tenth of it."""


@contextmanager
def serving(
    data: Path, *models: Path | str, start: bool = True, free: Free = available_bytes, **options: Any
) -> Iterator[Engine]:
    """An engine of tiny models in float32, stopped at the end."""
    names = tuple(map(str, models))
    engine = Engine(
        EngineConfig(data=data, models=names, device="cpu", dtype="fp32", threads=1, **options), free
    )
    try:
        if start:
            engine.start()
        yield engine
    finally:
        engine.stop()


def ask(prompt: str = "a red cube", **fields: Any) -> ImageRequest:
    return ImageRequest(**{"prompt": prompt, "width": 64, "height": 64, "steps": 2, **fields})


def submit(engine: Engine, request: ImageRequest | None = None, **fields: Any) -> Job:
    """Submit a request to the first model."""
    return engine.submit(JobSpec(model=engine.catalogue.default, request=request or ask(), **fields))


def finished(engine: Engine, job: Job) -> Job:
    """Wait for the end of a job."""
    return events(engine, job)[-1].job


def events(engine: Engine, job: Job, *, previews: bool = False) -> list[JobEvent]:
    """All events of a job, from now on."""
    subscription, found = engine.subscribe(job.id, previews=previews), list[JobEvent]()
    while not subscription.ended:
        event = subscription.next(SECONDS)
        assert event is not None, f"nothing came after {[each.kind for each in found]}"
        found.append(event)
    subscription.close()
    return found


def wait_for(engine: Engine, job: Job, kind: str) -> None:
    """Wait until something has happened to a job."""
    subscription = engine.subscribe(job.id)
    while (event := subscription.next(SECONDS)) is not None and event.kind != kind:
        assert not event.is_last, f"it ended as {event.kind}: {event.message}"
    assert event is not None, f"no {kind} came"
    subscription.close()
