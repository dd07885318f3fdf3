"""Batches drawn, interrupted, gone on with, and on several processes of which one is killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from sanakit.base.errors import OutputError, RequestError
from sanakit.batch import BatchReport, Item, Loading, read_items, run_batch
from sanakit.batch.workers import Workers, draw_here, in_processes
from sanakit.pipeline.png import read_picture
from tests.oracles.tiny import Folders, Recipe

SMALL = {"steps": 2, "width": 64, "height": 64}
LINES = [
    "a red cube",
    '{"prompt": "a cone", "key": "cone", "seed": 4}',
    '{"prompt": "two balls", "count": 2}',
]


def run(items: Sequence[Item], folder: Path, loading: Loading, workers: Workers = draw_here) -> BatchReport:
    return list(run_batch(items, folder, loading, workers))[-1]


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in sorted(folder.glob("*.png"))}


def test_every_item_is_a_picture_with_its_request_and_none_is_drawn_twice(tmp_path, loading):
    items = read_items(LINES, SMALL)
    report = run(items, tmp_path, loading)
    assert (report.total, report.done, report.there, report.faults) == (4, 4, 0, ())
    drawn = files(tmp_path)
    assert list(drawn) == ["000001.png", "000003-0.png", "000003-1.png", "cone.png"]
    assert read_picture(tmp_path / "cone.png").request.seed == 4
    (tmp_path / "cone.png").unlink()
    again = run(items, tmp_path, loading)
    assert (again.done, again.there) == (4, 3)
    after = files(tmp_path)
    assert {name: content for name, (_, content) in after.items()} == {
        name: content for name, (_, content) in drawn.items()
    }
    assert [after[name] == drawn[name] for name in drawn] == [True, True, True, False]


def test_a_file_that_shows_something_else_stops_the_batch_before_it_draws(tmp_path, loading):
    run(read_items(["a red cube"], SMALL), tmp_path, loading)
    before = files(tmp_path)
    with pytest.raises(OutputError, match="000001.png shows another request than its line"):
        run(read_items(["a blue cube", "a cone"], SMALL), tmp_path, loading)
    assert files(tmp_path) == before


def test_a_picture_of_other_weights_stops_the_batch(tmp_path, loading):
    run(read_items(["a red cube"], SMALL), tmp_path / "out", loading)
    other = replace(loading, name=str(Folders(tmp_path / "models")(Recipe(seed=5))))
    with pytest.raises(OutputError, match="000001.png was drawn with other weights"):
        run(read_items(["a red cube"], SMALL), tmp_path / "out", other)


def test_what_the_model_cannot_draw_is_refused_with_its_key(tmp_path, loading):
    lines = ["a red cube", '{"prompt": "a cone", "key": "cone", "pag": 2, "pag_blocks": [99]}']
    with pytest.raises(RequestError, match="^cone: "):
        run(read_items(lines, SMALL), tmp_path, loading)
    assert not files(tmp_path)


def test_a_fault_of_one_item_is_written_down_and_tried_again(tmp_path, loading):
    items = read_items(["cube " * 400, "a cone"], SMALL)
    for _ in range(2):
        report = run(items, tmp_path, loading)
        assert [fault.key for fault in report.faults] == ["000001"] and report.done == 2
        (line,) = (tmp_path / "failures.jsonl").read_text().splitlines()
        assert json.loads(line)["key"] == "000001" and "too long" in json.loads(line)["fault"]
    assert list(files(tmp_path)) == ["000002.png"]
    run(items[1:], tmp_path, loading)
    assert not (tmp_path / "failures.jsonl").exists()


def test_two_batches_do_not_draw_into_one_folder(tmp_path, loading):
    items = read_items(LINES, SMALL)
    first = run_batch(items, tmp_path, loading)
    next(first)
    with pytest.raises(OutputError, match="draws a batch"):
        run(items, tmp_path, loading)
    assert list(first)[-1].done == 4


def pool_processes() -> list[int]:
    return [process.pid for process in multiprocessing.active_children() if process.pid is not None]


def ray_actors() -> list[int]:
    """The processes of Ray that hold a worker of a batch; Ray names a process by what it runs."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and b"_Worker" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def survives_a_kill(
    folder: Path, loading: Loading, workers: Workers, processes: Callable[[], list[int]]
) -> None:
    """Kill a worker after the first picture: all pictures are there in the end, and none of them was written twice."""
    items = read_items([json.dumps({"prompt": "a cube", "seed": seed}) for seed in range(12)], SMALL)
    seen, killed = {}, False
    for report in run_batch(items, folder, loading, workers):
        for name, (written, _) in files(folder).items():
            assert seen.setdefault(name, written) == written, f"{name} was drawn twice"
        if report.last is not None and not killed:
            os.kill(processes()[0], signal.SIGKILL)
            killed = True
    assert killed and report.done == 12 and not report.faults
    assert [read_picture(folder / item.file).request.seed for item in items] == list(range(12))


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX's")
def test_a_killed_process_loses_nothing(tmp_path, loading):
    survives_a_kill(tmp_path, loading, in_processes(1), pool_processes)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="workers are found in /proc")
@pytest.mark.filterwarnings("ignore")
def test_a_killed_worker_of_ray_loses_nothing(tmp_path, loading):
    ray = pytest.importorskip("ray", reason='Ray is optional: pip install "sanakit[ray]"')
    from sanakit.batch.ray import on_ray

    ray.init(num_cpus=3, logging_level="ERROR", log_to_driver=False, include_dashboard=False)
    try:
        survives_a_kill(tmp_path, loading, on_ray(3), ray_actors)
    finally:
        ray.shutdown()
