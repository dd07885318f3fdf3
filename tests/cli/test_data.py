"""`sanakit data check`: the report, its file, the verdict as exit code, and input that is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.running import Sana
from tests.data.pictures import png, write_files, write_plain, write_tar


@pytest.fixture
def check(sana: Sana):
    """`sanakit data check` for pictures of 64 pixels, with the tokenizer and sizes of a tiny model."""
    return lambda *arguments: sana("data", "check", *arguments, "--base", 64, "--model", sana.model)


def test_go(check, tmp_path: Path) -> None:
    write_plain(tmp_path / "set", 5, sizes=((64, 64), (128, 64)))
    result = check("set", "--json", "out/report.json")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "set: 5 pictures, 5 can be read and have a caption"
    assert lines[-1] == "GO: 5 of 5 pictures are ready."
    assert any(line.startswith("      64x64         3  ███") for line in lines)
    assert "counted by the model's tokenizer" in result.stdout
    assert result.stderr == ""
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert (report["verdict"], report["usable"], report["faults"]) == ("GO", 5, {})
    assert report["buckets"]["64x64"] == 3
    assert report["captions"]["counted"]
    assert report["cache"]["latent_bytes"] > 0


def test_fix_lists_what_is_wrong_and_ends_with_0_unless_strict(check, tmp_path: Path) -> None:
    root = write_plain(tmp_path / "set", 6)
    for number in range(4):
        write_files(root, {f"bad{number}.png": b"x", f"bad{number}.txt": "a caption"})
    before = {path.name: path.read_bytes() for path in root.iterdir()}
    result = check("set", "--json", "report.json")
    assert result.exit_code == 0
    assert "unreadable pictures: 4 (40.0%); replace them; training passes them over" in result.stdout
    assert "    and 1 more; --json FILE lists all" in result.stdout
    assert result.stdout.splitlines()[-1].startswith(
        "FIX: training would run, but put right: unreadable pictures (4)"
    )
    faults = json.loads((tmp_path / "report.json").read_text())["faults"]
    assert [fault["key"] for fault in faults["corrupt"]] == [f"bad{number}" for number in range(4)]
    assert check("set", "--strict").exit_code == 2
    assert check("set", "--tolerance", 0.4, "--strict").exit_code == 0
    assert {path.name: path.read_bytes() for path in root.iterdir()} == before


def test_stop_ends_with_2_and_a_report(check, tmp_path: Path) -> None:
    write_files(tmp_path / "set", {"a.png": png()})
    result = check("set")
    assert result.exit_code == 2
    assert result.stdout.splitlines()[-1] == "STOP: only 0 of 1 pictures can be read and have a caption."


def test_leaks_between_shards_and_a_folder(check, tmp_path: Path) -> None:
    for number in range(2):
        members = {f"{n}.png": png(seed=10 * number + n) for n in range(3)}
        write_tar(tmp_path / f"s-{number}.tar", {**members, **{f"{n}.txt": "words" for n in range(3)}})
    write_files(tmp_path / "test", {"t.png": png(seed=11), "t.txt": "words"})
    result = check("s-{0..1}.tar", "--against", "test")
    assert result.exit_code == 0
    assert "s-1.tar/1 is t of test byte by byte" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("FIX: ")


def test_names_of_models_give_sizes_but_no_tokenizer(sana: Sana, tmp_path: Path) -> None:
    write_plain(tmp_path / "set", 1, sizes=((512, 512),))
    result = sana("data", "check", "set", "--square")
    assert result.exit_code == 0
    assert "estimated; --model FOLDER counts them" in result.stdout
    latents = 16 * 16 * 32 * 2
    assert f"cache: {latents / 2**20:.1f} MiB of latents" in result.stdout


REFUSED = {
    "no such path": (["absent"], "there is nothing at absent"),
    "an empty folder": (["empty"], "there is no picture in empty"),
    "a file that is no tar": (["none.tar"], "none.tar isn't a tar file"),
    "a file that is no set": (["note.txt"], "neither a folder nor a tar shard"),
    "a pattern without a shard": (["x-{0..9}.tar"], "there is nothing at x-{0..9}.tar"),
    "another set that is absent": (["set", "--against", "absent"], "there is nothing at absent"),
    "a base that is no multiple of 32": (["set", "--base", "100"], "multiple of 32"),
    "an unknown model": (["set", "--model", "no-such-model"], "no-such-model"),
    "a folder that is no model": (["set", "--model", "empty"], "model_index.json"),
    "a distance that is too large": (["set", "--distance", "40"], "0 to 15 bits"),
    "a tolerance that is no share": (["set", "--tolerance", "3"], "from 0 to 1"),
    "no worker": (["set", "--workers", "0"], "1 or more"),
    "a report below a file": (["set", "--json", "note.txt/report.json"], "note.txt"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_one_sentence(sana: Sana, tmp_path: Path, name: str) -> None:
    arguments, words = REFUSED[name]
    write_plain(tmp_path / "set", 2)
    write_files(tmp_path, {"note.txt": "x", "none.tar": "no tar " * 200, "empty/.keep": ""})
    result = sana("data", "check", *arguments)
    assert result.exit_code == 2, (result.stdout, result.stderr, result.exception)
    assert result.stdout == ""
    assert result.stderr.startswith("sanakit: ")
    assert result.stderr.count("\n") == 1
    assert words in result.stderr


def test_an_interrupt_ends_with_130(check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_plain(tmp_path / "set", 4)

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sanakit.data.check.ImageHashes.put", interrupt)
    result = check("set", "--json", "report.json")
    assert result.exit_code == 130
    assert not (tmp_path / "report.json").exists()


def test_files_that_nothing_reads_are_let_pass_by_their_ending(check, tmp_path: Path) -> None:
    write_plain(tmp_path / "set", 4)
    write_files(tmp_path / "set", {f"{n}.HEIC": b"x" for n in range(40)} | {"a.mov": b"x", "b.raw": b"x"})
    first = check("set").stdout
    assert "files of unknown types: 42 (1050.0%)" in first
    assert "    40 files .heic, the first is 0.HEIC" in first
    assert first.splitlines()[-1].startswith("FIX: ")
    assert check("set", "--ignore", "heic").stdout.splitlines()[-1].startswith("FIX: ")
    result = check("set", "--ignore", ".HEIC,mov", "--ignore", "raw")
    assert result.stdout.splitlines()[-1] == "GO: 4 of 4 pictures are ready."


def test_the_pictures_without_a_fault_are_listed(check, sana: Sana, tmp_path: Path) -> None:
    root = write_plain(tmp_path / "set", 5)
    write_files(root, {"bad.png": png(seed=9)[:-40], "bad.txt": "x", "silent.png": png(seed=10)})
    write_files(
        root,
        {
            "again.png": png(seed=3),
            "again.txt": "picture number 3",
            "a\nb.png": png(seed=11),
            "a\nb.txt": "x",
        },
    )
    result = check("set", "--write-keys", "keys.txt")
    assert result.exit_code == 0
    assert "5 of 9 pictures are listed in keys.txt" in result.stderr
    assert "has a line break in its name and can't be listed" in result.stderr
    assert (tmp_path / "keys.txt").read_text().splitlines() == ["000", "001", "002", "003", "004"]
    filled = sana("data", "cache", "set", "--only", "keys.txt", "--model", sana.model, "--size", 64, "--json")
    assert json.loads(filled.stdout)["pictures"] == {"made": 5, "reused": 0, "skipped": 0}


def test_no_list_without_a_picture_to_list(check, tmp_path: Path) -> None:
    write_files(tmp_path / "set", {"a.png": png()})
    result = check("set", "--write-keys", "keys.txt")
    assert result.exit_code == 2
    assert "no picture of set is without a fault, so keys.txt was not written." in result.stderr
    assert not (tmp_path / "keys.txt").exists()
