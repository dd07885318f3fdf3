"""Labelling a set: what is written, what a second run still does, and what an interruption costs."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from sanakit.base.errors import OutputError
from sanakit.data.items import Caption, Item, PictureSet
from sanakit.data.labels.labellers import captioning, lacks_caption, lacks_score, scoring
from sanakit.data.labels.run import LARGEST_SIDE, Labelled, label_here, open_picture, write_labelled
from sanakit.data.source import open_set, write_captions
from tests.data.pictures import png, write_files, write_plain, write_tar


class Counting:
    """A captioner that says the size of a picture; it fails at picture number `stop`."""

    def __init__(self, stop: int = 10**9, error: type[BaseException] = KeyboardInterrupt) -> None:
        self.seen, self.stop, self.error = 0, stop, error

    def __call__(self, pictures: Sequence[Image.Image]) -> list[str]:
        self.seen += len(pictures)
        if self.seen > self.stop:
            raise self.error
        return [f" {one.width} by  {one.height}\n" for one in pictures]


def run(pictures: PictureSet, captioner: Counting, every: int = 4, batch: int = 2) -> list:
    indices = [index for index, item in enumerate(pictures) if lacks_caption(item, "me")]
    results = label_here(pictures, indices, captioning(captioner, "me"), batch)
    return list(write_labelled(pictures, results, len(indices), every=every))


def test_captions_are_written_beside_the_set(tmp_path: Path) -> None:
    write_plain(tmp_path, 5, ((64, 48), (32, 32)))
    reports = run(open_set(tmp_path), Counting())
    assert [(report.done, report.total) for report in reports][-1] == (5, 5)
    assert reports[-1].written == 5 and reports[-1].remaining == 0 and not reports[-1].faults
    first = open_set(tmp_path)[0]
    assert first.captions == (
        Caption(text="picture number 0"),
        Caption(text="64 by 48", source="me"),
    )
    assert not any(lacks_caption(item, "me") for item in open_set(tmp_path))
    assert run(open_set(tmp_path), Counting(stop=0))[-1].total == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_run_goes_on_where_it_was_interrupted(tmp_path: Path, error: type[BaseException]) -> None:
    write_plain(tmp_path, 11)
    with pytest.raises(error):
        run(open_set(tmp_path), Counting(stop=6, error=error), every=100)
    assert sum(not lacks_caption(item, "me") for item in open_set(tmp_path)) == 6
    second = Counting()
    run(open_set(tmp_path), second)
    assert second.seen == 5 and not any(lacks_caption(item, "me") for item in open_set(tmp_path))


def test_a_crash_loses_what_was_not_written(tmp_path: Path) -> None:
    write_plain(tmp_path, 10)
    pictures = open_set(tmp_path)
    results = label_here(pictures, range(10), captioning(Counting(), "me"), 1)
    walk = write_labelled(pictures, results, 10, every=4)
    on_disk = []
    for _ in range(9):
        next(walk)
        on_disk.append(sum(not lacks_caption(item, "me") for item in open_set(tmp_path)))
    assert on_disk[:8] == [0, 0, 0, 4, 4, 4, 4, on_disk[7]] and on_disk[7] >= 4
    walk.close()
    assert sum(not lacks_caption(item, "me") for item in open_set(tmp_path)) == 9


def test_a_full_disk_is_one_sentence_and_the_old_labels_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_plain(tmp_path, 3)
    write_captions(tmp_path, {"000": [Caption(text="kept", source="old")]})

    def refuse(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OutputError, match=r"captions\.jsonl: No space left on device"):
        run(open_set(tmp_path), Counting(), every=1)
    assert Caption(text="kept", source="old") in open_set(tmp_path)[0].captions


def test_pictures_that_break_are_told_and_passed_over(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.png": png(), "b.png": png()[:200], "c.png": png(8, 8)})
    last = run(open_set(tmp_path), Counting(), batch=3)[-1]
    assert (last.done, last.written) == (3, 2)
    assert [fault.key for fault in last.faults] == ["b"] and "broken" in last.faults[0].fault


def test_a_model_that_says_nothing_is_a_fault(tmp_path: Path) -> None:
    write_plain(tmp_path, 1)
    pictures = open_set(tmp_path)
    (only,) = label_here(pictures, [0], captioning(lambda images: ["  "], "me"), 1)
    assert only == Labelled(key="000", fault="the model had nothing to say")


def test_scores_go_to_every_caption_and_replace_old_ones(tmp_path: Path) -> None:
    write_plain(tmp_path, 2)
    write_captions(tmp_path, {"001": [Caption(text="more", source="me", score=3.0)]})
    pictures = open_set(tmp_path)
    assert [lacks_score(item) for item in pictures] == [True, True]
    labeller = scoring(lambda images, texts: [[len(text) + 0.00049 for text in row] for row in texts])
    list(write_labelled(pictures, label_here(pictures, [0, 1], labeller, 2), 2))
    scored = open_set(tmp_path)
    assert [caption.score for caption in scored[1].captions] == [16.0, 4.0]
    assert not any(map(lacks_score, scored))


def test_shards_are_labelled_beside_them(tmp_path: Path) -> None:
    write_tar(tmp_path / "s-000.tar", {"a.png": png(), "a.txt": "one"})
    run(open_set(tmp_path / "s-000.tar"), Counting())
    assert (tmp_path / "captions.jsonl").is_file()
    assert [c.text for c in open_set(tmp_path / "s-000.tar")[0].captions] == ["one", "64 by 64"]


def test_pictures_come_whole_and_of_bounded_size(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.png": png(63, 31), "b.png": png(2 * LARGEST_SIDE, 10)})
    pictures = open_set(tmp_path)
    with Image.open(tmp_path / "a.png") as stored:
        assert open_picture(pictures, 0).tobytes() == stored.tobytes()
    assert open_picture(pictures, 1).size == (LARGEST_SIDE, 5)


def test_a_labeller_of_items_without_captions() -> None:
    item = Item(key="a", width=1, height=1, captions=())
    assert not lacks_score(item) and lacks_caption(item, "me")
    assert scoring(lambda images, texts: [[]])([Image.new("RGB", (4, 4))], [item]) == [()]
