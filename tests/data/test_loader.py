"""Reading: batches from any step on, bad pictures replaced the same way in every world, clean ends."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from sanakit.base.errors import ConfigError, PictureError
from sanakit.data import (
    BatchOrder,
    PictureReader,
    Prefetch,
    crop_for,
    open_set,
    picture_tensor,
    share,
)
from tests.data.pictures import write_plain

BUCKET = (32, 32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_plain(tmp_path / "set", 12, sizes=((40, 32), (32, 50)))


def reader_of(folder: Path, **options) -> PictureReader:
    pictures = open_set(folder)
    return PictureReader(pictures, BatchOrder([BUCKET] * len(pictures), 4, seed=3), **options)


def test_pictures_are_those_of_the_order(folder: Path) -> None:
    pictures = open_set(folder)
    order = BatchOrder([BUCKET] * 12, 4, seed=3)
    with PictureReader(pictures, order) as reader:
        batch = reader(5)
    assert (batch.step, batch.epoch, batch.bucket) == (5, 1, BUCKET)
    assert batch.indices == order.batch(5).indices
    for index, crop, pixels in zip(batch.indices, batch.crops, batch.pixels, strict=True):
        assert crop == crop_for(pictures[index], BUCKET)
        assert torch.equal(pixels, picture_tensor(pictures.read(index), crop))


@pytest.mark.parametrize("crops", ["centre", "random"])
def test_a_start_in_the_middle_sees_what_a_whole_run_saw(folder: Path, crops) -> None:
    with reader_of(folder, crops=crops) as whole, reader_of(folder, crops=crops, workers=1, ahead=1) as late:
        seen = [whole(step) for step in range(6)]
        for step in (4, 5, 1):
            again = late(step)
            assert (again.indices, again.crops) == (seen[step].indices, seen[step].crops)
            assert torch.equal(again.pixels, seen[step].pixels)


def test_random_crops_differ_from_epoch_to_epoch(folder: Path) -> None:
    with reader_of(folder, crops="random") as reader:
        seen = {}
        for step in range(12):
            batch = reader(step)
            seen |= {
                (index, batch.epoch): crop for index, crop in zip(batch.indices, batch.crops, strict=True)
            }
    places = {index: {crop for (at, _), crop in seen.items() if at == index} for index, _ in seen}
    assert any(len(crops) > 1 for crops in places.values())


@pytest.mark.parametrize("world", [1, 2, 4])
def test_bad_pictures_are_replaced_alike_in_every_world(folder: Path, world: int) -> None:
    pictures = open_set(folder)
    for number in (3, 4):
        path = folder / f"{number:03d}.png"
        path.write_bytes(path.read_bytes()[:-60])
    order = BatchOrder([BUCKET] * 12, 4, seed=3)
    wanted = [{3: 5, 4: 5}.get(index, index) for step in range(3) for index in order.batch(step).indices]
    found: dict[int, int] = {}
    skipped = set()
    for rank in range(world):
        with PictureReader(pictures, order, rank=rank, world=world) as reader:
            for step in range(3):
                for place, index in enumerate(reader(step).indices):
                    found[step * 4 + place * world + rank] = index
            skipped |= {fault.key for fault in reader.faults}
    assert [found[place] for place in range(12)] == wanted
    assert skipped == {"003", "004"}
    assert (folder / "003.png").exists()


def test_a_bucket_without_a_readable_picture_is_an_error(folder: Path) -> None:
    reader = reader_of(folder)
    for path in folder.glob("*.png"):
        path.unlink()
    with reader, pytest.raises(PictureError, match="no picture of the size 32x32 can be read"):
        reader(0)


def test_ranks_that_do_not_fit_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="evenly to 3"):
        reader_of(folder, world=3)
    with pytest.raises(ConfigError, match="1 worker"):
        reader_of(folder, workers=0)
    with pytest.raises(ConfigError, match="'centre' or 'random'"):
        reader_of(folder, crops="left")


def test_steps_are_produced_ahead_and_once() -> None:
    made: list[int] = []
    ahead = threading.Event()

    def produce(step: int) -> int:
        made.append(step)
        if step == 2:
            ahead.set()
        return step * step

    with Prefetch(produce, workers=1, ahead=3) as prefetch:
        assert prefetch(0) == 0
        assert ahead.wait(10)  # nobody has asked for step 2
        assert [prefetch(step) for step in (1, 2, 3)] == [1, 4, 9]
    assert made[:4] == [0, 1, 2, 3]


def test_an_error_is_raised_where_its_step_is_asked_for_and_all_threads_end() -> None:
    def produce(step: int) -> int:
        if step == 1:
            raise ValueError("step 1")
        return step

    with pytest.raises(ValueError, match="step 1"), Prefetch(produce, workers=2, ahead=3) as prefetch:
        assert prefetch(0) == 0
        prefetch(1)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_an_interrupted_consumer_leaves_no_thread(folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt), reader_of(folder) as reader:
        reader(0)
        raise KeyboardInterrupt
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_the_share_of_one_process() -> None:
    assert share((5, 6, 7, 8), 1, 2) == (6, 8)
