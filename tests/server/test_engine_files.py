"""Jobs with LoRAs and ControlNets: drawn as `Model` draws them whatever runs beside them, and after a restart."""

from __future__ import annotations

import io
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sanakit.pipeline import ImageRequest, load
from sanakit.pipeline.control import Control
from sanakit.pipeline.inputs import InputImage
from sanakit.server import Engine, Job
from tests.oracles.tiny import Folders
from tests.pipeline.drawing import open_model
from tests.pipeline.test_control import Nets
from tests.pipeline.test_edit import picture
from tests.pipeline.test_lora_use import make
from tests.server.engines import ask, finished, serving, submit


def drawn(engine: Engine, job: Job) -> np.ndarray:
    ended = finished(engine, job)
    assert ended.state == "done", ended.error
    return pixels(Image.open(io.BytesIO(engine.picture(ended.pictures[0].id))))


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def test_jobs_with_other_loras_take_turns_and_nothing_leaks(tiny: Folders, tmp_path: Path) -> None:
    folder = tiny()
    files = {
        name: make(tmp_path, folder, f"{name}.safetensors", seed) for seed, name in enumerate(("one", "two"))
    }
    model = load(folder, "cpu", "fp32", swap_loras=True)
    with serving(tmp_path / "data", folder, start=False, loras=files, patience=0.0) as engine:
        sets = [(), ("one", 1.0), ("one", 0.5), (), ("two", -1.0), ("one", 1.0)]
        requests = [
            ask(seed=seed, loras=() if not chosen else (engine.catalogue.lora(*chosen),), steps=3)
            for seed, chosen in enumerate(sets)
        ]
        jobs = [submit(engine, request) for request in requests]
        engine.start()
        for job, request in zip(jobs, requests, strict=True):
            assert np.abs(drawn(engine, job) - pixels(model.images(request)[0])).max() <= 1
    plain, styled = (pixels(model.images(request)[0]) for request in (ask(seed=1), requests[1]))
    assert np.abs(plain - styled).max() > 5


def test_a_job_keeps_its_files_over_a_restart(tiny: Folders, tmp_path: Path) -> None:
    """The database knows LoRA and ControlNet by hash; one that is not offered any more fails its job in words."""
    folder, net = Nets(tmp_path / "nets", tiny)("sana")
    offers = {"loras": {"one": make(tmp_path, folder, "one.safetensors", 1)}, "controls": {"edges": net}}
    with serving(tmp_path / "data", folder, start=False, **offers) as engine:
        control = Control(network=engine.catalogue.control("edges"), picture=InputImage.of(picture(64, 64)))
        steered = ask(controls=(control,), loras=(engine.catalogue.lora("one", 0.7),))
        job, lost = submit(engine, steered), submit(engine, ask(controls=(control,)))
    with serving(tmp_path / "data", folder, **offers) as engine:
        alone = load(folder, "cpu", "fp32", swap_loras=True).images(steered)[0]
        assert np.abs(drawn(engine, job) - pixels(alone)).max() <= 1
        engine.cancel(lost.id)
        again = submit(engine, ask(loras=(engine.catalogue.lora("one"),), steps=200))
    with serving(tmp_path / "data", folder) as engine:
        ended = finished(engine, again)
        assert (ended.state, "is not offered here any more" in (ended.error or "")) == ("failed", True)


@pytest.mark.parametrize("seconds", [0.0, 60.0], ids=["at once", "drained"])
def test_stopping_twice_and_from_two_threads_ends(tiny: Folders, tmp_path: Path, seconds: float) -> None:
    with serving(tmp_path, tiny()) as engine:
        submit(engine, ask(steps=200))
        drains = threading.Thread(target=engine.stop, kwargs={"drain": True, "seconds": 60.0})
        drains.start()
        engine.stop(drain=seconds > 0, seconds=seconds)
        drains.join(60)
        assert not drains.is_alive()


def test_a_picture_drawn_beside_others_can_be_drawn_again_from_its_record(
    tiny: Folders, tmp_path: Path
) -> None:
    with serving(tmp_path, tiny(), start=False) as engine:
        jobs = [submit(engine, ask(seed=seed, steps=2 + seed)) for seed in range(3)]
        engine.start()
        found = [drawn(engine, job) for job in jobs]
        for job, seen in zip(jobs, found, strict=True):
            request = ImageRequest.from_json(engine.get(job.id).request.to_json())
            again = open_model(tiny()).images(request)[0]
            assert np.abs(pixels(again) - seen).max() <= 1
