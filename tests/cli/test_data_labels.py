"""`sanakit data caption`, `score`, `filter` and `cache`: what they say and write, and bad input in one sentence."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest

from sanakit.data.cache.store import shards_in
from sanakit.data.labels.select import read_keys
from sanakit.data.source import open_set
from sanakit.toybox import caption, sample_scene
from tests.cli.running import Sana, lines_of
from tests.data.labels.renders import rendered
from tests.data.labels.tiny_models import write_clip
from tests.data.pictures import encoded, png, write_files, write_plain


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three renders with a true caption each, and beside the last a false one."""
    chosen = [sample_scene(seed) for seed in range(3)]
    files: dict[str, bytes | str] = {}
    for number, (scene, image) in enumerate(zip(chosen, rendered(chosen), strict=True)):
        files[f"{number}.png"] = encoded(image)
        files[f"{number}.txt"] = caption(scene, random.Random(number))
    files["2.txt"] = "four striped purple cones on sand"
    return write_files(tmp_path_factory.mktemp("scenes"), files)


@pytest.fixture
def world(scenes: Path, tmp_path: Path) -> Path:
    return write_files(tmp_path / "set", {path.name: path.read_bytes() for path in scenes.iterdir()})


def test_caption_score_filter(sana: Sana, world: Path) -> None:
    first = sana("data", "caption", world, "--model", "toybox")
    assert (first.exit_code, first.stdout) == (0, "3 pictures captioned\n")
    again = sana("data", "caption", world, "--model", "toybox")
    assert again.stdout == "0 pictures captioned, 3 had a caption of this model\n"
    assert [[c.source for c in item.captions] for item in open_set(world)] == [["", "toybox"]] * 3

    (world / "captions.jsonl").unlink()
    early = sana("data", "filter", world, "--out", "list")
    assert early.exit_code == 2 and "no caption of" in early.stderr and "data score" in early.stderr
    assert lines_of(sana("data", "score", world, "--model", "toybox", "--json")) == [
        {"scored": 3, "had_scores": 0, "have_no_caption": 0, "faults": []}
    ]
    assert sana("data", "score", world, "--model", "toybox").stdout == "0 pictures scored, 3 had scores\n"
    assert sana("data", "score", world, "--model", "toybox", "--again").stdout == "3 pictures scored\n"
    chosen = sana("data", "filter", world, "--out", "list")
    assert chosen.stdout == "list  (2 of 3 pictures score above 25)\n"
    assert read_keys(Path("list")) == ["0", "1"]
    none = sana("data", "filter", world, "--out", "other", "--score", 100)
    assert none.exit_code == 2 and "scores above 100" in none.stderr and not Path("other").exists()


def test_scores_of_a_clip(sana: Sana, world: Path, tmp_path: Path) -> None:
    model = write_clip(tmp_path / "clip")
    result = sana("data", "score", world, "--model", model, "--device", "cpu", "--batch", 2)
    assert result.stdout == "3 pictures scored\n"
    assert all(caption.score is not None for item in open_set(world) for caption in item.captions)


def test_what_could_not_be_labelled_is_told(sana: Sana, tmp_path: Path) -> None:
    write_files(tmp_path / "set", {"a.png": png(), "b.png": png()[:200], "c.png": png(8, 8)})
    result = sana("data", "caption", "set", "--model", "toybox")
    assert result.exit_code == 0 and "could not be" in result.stdout
    assert "note: b: it is broken" in result.stderr
    scored = sana("data", "score", "set", "--model", "toybox")
    assert scored.stdout.endswith(", 1 have no caption\n")


def test_cache_is_filled_once_and_checked(sana: Sana, tmp_path: Path) -> None:
    write_plain(tmp_path / "set", 3, ((64, 64), (90, 50)))
    (tmp_path / "set/bad.png").write_bytes(png()[:300])
    fill = ("data", "cache", "set", "--model", sana.model, "--size", 64, "--device", "cpu", "--dtype", "fp32")
    result = sana(*fill)
    assert result.exit_code == 0, result.stderr
    assert "pictures: 3 made, 0 reused, 1 skipped in " in result.stdout
    assert (
        "captions: 4 made, 0 reused, 0 skipped" in result.stdout
        and "note: bad: it is broken" in result.stderr
    )
    again = lines_of(sana(*fill, "--json"))
    assert again[0]["pictures"] == {"made": 0, "reused": 3, "skipped": 1}
    assert again[0]["captions"]["reused"] == 4 and again[0]["cache"] == "out/cache"
    checked = sana("data", "cache", "--verify")
    assert (checked.exit_code, checked.stdout) == (0, "2 shards with 7 entries are whole, 0 broken\n")

    broken = shards_in(Path("out/cache"))[0]
    broken.write_bytes(broken.read_bytes()[:-1])
    checked = sana("data", "cache", "--verify")
    assert checked.exit_code == 1 and f"broken    {broken} is cut off or damaged: delete it" in checked.stdout
    assert lines_of_broken(sana("data", "cache", "--verify", "--json"))["broken"] == 1
    mended = sana(*fill)
    assert "it is passed over, and what it held is made anew" in mended.stderr
    assert mended.exit_code == 0


def lines_of_broken(result) -> dict:
    assert result.exit_code == 1
    return json.loads(result.stdout)


def test_cache_of_a_list_at_several_sizes(sana: Sana, tmp_path: Path) -> None:
    write_plain(tmp_path / "set", 3, ((64, 64), (128, 128)))
    Path("list").write_text("001\n")
    fill = ("data", "cache", "set", "--model", sana.model, "--device", "cpu", "--dtype", "fp32", "--square")
    (told,) = lines_of(sana(*fill, "--size", 64, "--size", 128, "--only", "list", "--out", "c", "--json"))
    assert told["pictures"]["made"] == 1 and told["captions"]["made"] == 2
    assert '"128x128"' in Path("c/cache.json").read_text()
    (told,) = lines_of(sana(*fill, "--size", 64, "--size", 128, "--least", 3, "--out", "d", "--json"))
    assert told["pictures"]["made"] == 3 and '"128x128"' not in Path("d/cache.json").read_text()


BAD = {
    "no set": (["cache"], "say which set"),
    "verify beside a set": (["cache", "set", "--verify"], "takes no PATH"),
    "verify beside square": (["cache", "--verify", "--square"], "takes no --square"),
    "verify of nothing": (["cache", "--verify", "--out", "nowhere"], "there is no cache at nowhere"),
    "batch of none": (["cache", "set", "--batch", "0"], "--batch must be 1 or more"),
    "a size that is none": (["cache", "set", "--size", "50"], "multiple of 32"),
    "a list that is none": (["cache", "set", "--only", "gone"], "the list gone can't be read"),
    "a set that is none": (["caption", "gone", "--model", "toybox"], "there is nothing at gone"),
    "a model that is none": (["caption", "set", "--model", "gone"], "no model 'gone'"),
    "workers without ray": (["score", "set", "--model", "toybox", "--workers", "2"], "are for --ray"),
    "every of none": (["score", "set", "--model", "toybox", "--every", "0"], "--every must be"),
    "a captioner that scores": (["caption", "set", "--model", "open_clip:a/b"], "only scores captions"),
    "asking the judge": (["caption", "set", "--model", "toybox", "--instruction", "x"], "no instruction"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence(sana: Sana, tmp_path: Path, case: str) -> None:
    arguments, words = BAD[case]
    write_plain(tmp_path / "set", 1)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    result = sana("data", *arguments)
    assert result.exit_code == 2 and words in result.stderr and result.stderr.count("\n") == 1, result.stderr
    assert not result.stdout and sorted(path.name for path in tmp_path.rglob("*")) == before


def test_ray_that_is_missing(sana: Sana, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    write_plain(tmp_path / "set", 1)
    result = sana("data", "caption", "set", "--model", "toybox", "--ray")
    assert result.exit_code == 2 and 'pip install "sanakit[ray]"' in result.stderr
