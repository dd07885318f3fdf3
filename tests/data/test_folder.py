"""Folders of strangers: what lies in them besides pictures, how things are named, and tables from other machines."""

from __future__ import annotations

import csv
import io
import json
import os
import socket
import subprocess
import unicodedata
from pathlib import Path

import pytest

from sanakit.base.errors import DataError
from sanakit.data import Caption, PictureSet, open_set, write_captions
from sanakit.data.labels import indices_of, read_keys, write_keys
from tests.data.pictures import jpeg, png, write_files, write_tar


def texts(found: PictureSet) -> dict[str, list[str]]:
    return {item.key: [caption.text for caption in item.captions] for item in found}


def faults(found: PictureSet, kind: str) -> list[tuple[str, int]]:
    return [(fault.text, fault.count) for fault in found.faults if fault.kind == kind]


def test_files_that_nothing_reads_are_counted_by_ending(tmp_path: Path) -> None:
    root = write_files(
        tmp_path,
        {
            **{f"{n}.jpg": jpeg(seed=n) for n in range(4)},
            **{f"i{n}.HEIC": b"heic" for n in range(40)},
            "deep/m.mov": b"film",
            "Makefile": b"",
            "0.npy": b"beside a picture",
            "broken.png": b"no picture",
            "broken.npy": b"beside it",
            "README": b"", "README.md": b"", "LICENSE.txt": b"", "Thumbs.db": b"", "desktop.ini": b"",
            ".DS_Store": b"", "page.html": b"",
        },
    )  # fmt: skip
    found = open_set(root)
    assert len(found) == 4
    assert faults(found, "unread") == [
        ("1 file without an ending, the first is Makefile", 1),
        ("40 files .heic, the first is i0.HEIC", 40),
        ("1 file .mov, the first is deep/m.mov", 1),
    ]


def test_files_in_shards_that_nothing_reads_are_counted(tmp_path: Path) -> None:
    shard = write_tar(
        tmp_path / "a.tar",
        {"0.png": png(), "0.cls": "7", "0.seg.png": png(), "1.jxl": "x", "2.jxl": "x", "2.txt": "two"},
    )
    assert faults(open_set(shard), "unread") == [("2 files .jxl, the first is a.tar/1.jxl", 2)]
    index = tmp_path / "index"
    for _ in range(2):
        assert faults(open_set(shard, index=index), "unread") == [
            ("2 files .jxl, the first is a.tar/1.jxl", 2)
        ]


def test_endings_are_read_in_any_case(tmp_path: Path) -> None:
    root = write_files(
        tmp_path,
        {
            "a.JPG": jpeg(), "a.TXT": "one", "b.Png": png(), "b.CAPTION": "two",
            "c.png": png(), "c.Json": '{"text": "three"}',
            "d.jpg": jpeg(), "d.jpg.txt": "four", "e.v2.png": png(), "e.v2.txt": "five",
        },
    )  # fmt: skip
    found = open_set(root)
    assert texts(found) == {"a": ["one"], "b": ["two"], "c": ["three"], "d": ["four"], "e.v2": ["five"]}
    assert found.faults == ()
    shard = write_tar(tmp_path / "s" / "a.tar", {"0.PNG": png(), "0.TXT": "one", "0.Caption": "two"})
    assert texts(open_set(shard)) == {"a.tar/0": ["one", "two"]}


def test_texts_beside_no_picture_are_told(tmp_path: Path) -> None:
    found = open_set(write_files(tmp_path, {"a.png": png(), "b.txt": "b", "c/c.json": "[" * 9}))
    assert faults(found, "lost") == [
        ("2 texts or records lie beside no picture of their name, the first is b.txt", 2)
    ]


NFD, NFC = unicodedata.normalize("NFD", "Übung é"), unicodedata.normalize("NFC", "Übung é")


@pytest.mark.parametrize(("stored", "said"), [(NFD, NFC), (NFC, NFD), (NFD, NFD)])
def test_accents_may_be_written_in_either_form(tmp_path: Path, stored: str, said: str) -> None:
    root = write_files(
        tmp_path / "set",
        {
            f"{stored}.png": png(),
            f"{said}.txt": "beside",
            "metadata.csv": f"file_name,text\n{said}.png,in a table\n",
            "captions.jsonl": json.dumps({"key": said, "text": "by key"}, ensure_ascii=False),
        },
    )
    found = open_set(root)
    assert texts(found) == {stored: ["beside", "in a table", "by key"]}
    assert found.faults == ()
    write_keys(tmp_path / "list.txt", [said])
    assert indices_of(found, read_keys(tmp_path / "list.txt")) == (0,)
    write_captions(root, {stored: [Caption(text="written")]})
    assert texts(open_set(root))[stored][-1] == "written"
    shard = write_tar(tmp_path / "a.tar", {f"{stored}.png": png(), f"{said}.txt": "in a shard"})
    assert texts(open_set(shard)) == {f"a.tar/{stored}": ["in a shard"]}


ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_texts_and_tables_in_every_unicode(tmp_path: Path, encoding: str, end: str) -> None:
    record = json.dumps({"text": "a récord"}, ensure_ascii=False)
    lines = [json.dumps({"file_name": "c.png", "text": "a líne"}, ensure_ascii=False)] * 2
    root = write_files(
        tmp_path,
        {
            **{f"{name}.png": png() for name in "abcd"},
            "a.txt": f"a cät{end}  on a mat{end}".encode(encoding),
            "b.json": f"{record}{end}".encode(encoding),
            "metadata.jsonl": end.join([*lines, ""]).encode(encoding),
            "metadata.csv": f'file_name,text{end}d.png,"a cell,{end}of two lïnes"{end}'.encode(encoding),
        },
    )
    found = open_set(root)
    assert texts(found) == {
        "a": ["a cät on a mat"],
        "b": ["a récord"],
        "c": ["a líne"],
        "d": ["a cell, of two lïnes"],
    }
    assert found.faults == ()


@pytest.mark.parametrize(
    "text", [b"a c\xe4t", b"\xff\xfea", b"a\0b\0c\0\xd8\xd8", b"\0\0\0\0x", b"\xf0\x9f\x90", b"\x00a\xd8\x00"]
)
def test_a_text_in_no_unicode_is_a_fault(tmp_path: Path, text: bytes) -> None:
    found = open_set(write_files(tmp_path, {"a.png": png(), "a.txt": text}))
    told = [fault.kind for fault in found.faults]
    assert told == ["encoding"] or "\0" not in "".join(texts(found)["a"])


def test_control_characters_are_no_part_of_a_caption(tmp_path: Path) -> None:
    root = write_files(
        tmp_path, {"a.png": png(), "a.json": json.dumps({"text": "a\x1b[31m \0\x9bred \u200d cat"})}
    )
    assert texts(open_set(root)) == {"a": ["a [31m red \u200d cat"]}


@pytest.mark.parametrize(
    ("name", "separator"), [("metadata.csv", ","), ("METADATA.CSV", ";"), ("captions.tsv", "\t")]
)
def test_a_table_as_spreadsheets_write_it(tmp_path: Path, name: str, separator: str) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=separator)
    rows = [
        ["a.png", 'says "hi", twice', "31.5"],
        ["sub/b.JPG", "two\nlines", ""],
        ["gone.png", "x", "1"],
        ["", "y", ""],
    ]
    writer.writerows([["file_name", "text", "score"], *rows])
    root = write_files(tmp_path, {"t/a.png": png(), "t/sub/b.jpg": jpeg(), f"t/{name}": buffer.getvalue()})
    found = open_set(root)
    assert found[0].captions == (Caption(text='says "hi", twice', score=31.5),)
    assert texts(found) == {"t/a": ['says "hi", twice'], "t/sub/b": ["two lines"]}
    assert [fault.kind for fault in found.faults] == ["record", "lost"]


def test_a_broken_row_costs_itself_alone(tmp_path: Path) -> None:
    lines = [
        b"file_name,text",
        b"a.png,caf\xe9",
        b"a.png,fine",
        b"a.png," + b"x" * 200_000,
        b"a.png,after",
        b"\0,\0",
    ]
    found = open_set(write_files(tmp_path, {"a.png": png(), "metadata.csv": b"\n".join(lines)}))
    assert texts(found) == {"a": ["fine", "after"]}
    assert [fault.kind for fault in found.faults][:2] == ["encoding", "record"]


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"file_name\n", b'"', b"\xef\xbb\xbf", b"text\nno names\n", b"\xff\xfe"]
)
def test_a_table_of_nothing(tmp_path: Path, content: bytes) -> None:
    found = open_set(
        write_files(tmp_path, {"a.png": png(), "metadata.csv": content, "captions.jsonl": content})
    )
    assert texts(found) == {"a": []}


PATHS = [
    ("C:\\data\\set\\sub\\b.png", "sub/b"), ("sub\\b.png", "sub/b"), ("\\\\server\\share\\set\\sub\\b.png", "sub/b"),
    ("/home/me/set/sub/b.png", "sub/b"), ("./sub/../sub/b.png", "sub/b"), ("sub/b", "sub/b"), ("sub//b.png", "sub/b"),
    ("file:///home/me/a.png", "a"), ("https://example.org/x/a.png", "a"), ("D:/a.PNG", "a"), ("sub/b.webp", "sub/b"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "key"), PATHS)
@pytest.mark.parametrize("table", ["metadata.jsonl", "metadata.csv"])
def test_paths_of_other_machines(tmp_path: Path, path: str, key: str, table: str) -> None:
    said = (
        json.dumps({"file_name": path, "text": "x"})
        if table.endswith("l")
        else f'file_name,text\n"{path}",x\n'
    )
    root = write_files(tmp_path, {"a.png": png(), "sub/b.png": png(seed=1), table: said})
    found = open_set(root)
    assert texts(found) == {"a": ["x"] if key == "a" else [], "sub/b": ["x"] if key == "sub/b" else []}
    told = [fault for fault in found.faults if fault.kind != "moved"]
    assert told == []
    plain = path.startswith(("./", "sub/"))
    assert [kind for kind, _ in faults(found, "moved")] == [
        text for text, _ in faults(found, "moved") if repr(path) in text and key in text
    ]
    assert len(faults(found, "moved")) == (0 if plain else 1)


def test_a_table_may_speak_of_a_folder_beside_its_own(tmp_path: Path) -> None:
    line = json.dumps({"file_name": "../pictures/a.png", "text": "x"})
    root = write_files(tmp_path, {"pictures/a.png": png(), "notes/metadata.jsonl": line})
    assert texts(open_set(root)) == {"pictures/a": ["x"]}


SCORES = [
    ("1" + "0" * 5000, "record"), ("1" + "0" * 400, "score"), ("400", "score"), ("-101", "score"), ("NaN", "score"),
    ("Infinity", "score"), ("-Infinity", "score"), ("1e999", "score"), ('"high"', "score"), ("true", "score"),
    ("[1]", "score"), ("{}", "score"), ("31.5", None), ('"31.5"', None), ("null", None), ('""', None), ("100", None),
]  # fmt: skip


@pytest.mark.parametrize(("score", "kind"), SCORES, ids=[score[:12] for score, _ in SCORES])
@pytest.mark.parametrize("place", ["a.json", "captions.jsonl"])
def test_a_score_that_is_none_costs_no_caption(
    tmp_path: Path, score: str, kind: str | None, place: str
) -> None:
    record = f'{{"key": "a", "text": "x", "score": {score}}}'
    found = open_set(write_files(tmp_path, {"a.png": png(), place: record}))
    assert [fault.kind for fault in found.faults] == ([] if kind is None else [kind])
    if kind != "record":
        (caption,) = found[0].captions
        assert (caption.score is None) == (kind is not None or score in ("null", '""'))


def test_numbers_of_thousands_of_digits_are_a_fault_of_their_line(tmp_path: Path) -> None:
    lines = [f'{{"key": "a", "id": {"7" * 5000}, "text": "x"}}', '{"key": "a", "text": "after"}']
    found = open_set(write_files(tmp_path, {"a.png": png(), "captions.jsonl": "\n".join(lines)}))
    assert texts(found) == {"a": ["after"]}
    (fault,) = found.faults
    assert fault.text.startswith("line 1 of captions.jsonl can't be read as JSON: ")
    assert "5000 digits" in fault.text


def test_lines_and_captions_without_end_are_not_read(tmp_path: Path) -> None:
    root = write_files(tmp_path, {"a.png": png(), "a.txt": "", "captions.jsonl": ""})
    for name in ("a.txt", "captions.jsonl"):
        with open(root / name, "r+b") as file:
            file.truncate(30 * 2**30)
    found = open_set(root)
    assert sorted((fault.key, fault.kind) for fault in found.faults) == [
        ("a", "record"),
        ("captions.jsonl", "record"),
    ]


def test_a_long_line_costs_itself_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sanakit.data.tables.MOST_CAPTION", 100)
    lines = ['{"key": "a", "text": "one"}', "x" * 950, '{"key": "a", "text": "two"}']
    found = open_set(write_files(tmp_path, {"a.png": png(), "captions.jsonl": "\n".join(lines)}))
    assert texts(found) == {"a": ["one", "two"]}
    assert [fault.text for fault in found.faults] == [
        "captions.jsonl has a line of more than 100 bytes at byte 28"
    ]


def special(root: Path) -> None:
    """Everything that is no regular file, under names of pictures and of texts."""
    for ending in ("png", "txt", "tar", "parquet", "bin"):
        os.mkfifo(root / f"pipe.{ending}")
    server = socket.socket(socket.AF_UNIX)
    before = Path.cwd()
    os.chdir(root)  # the name of a socket has a hundred bytes at most
    try:
        server.bind("socket.png")
    finally:
        os.chdir(before)
        server.close()
    (root / "zero.png").symlink_to("/dev/zero")
    (root / "zero.jsonl").symlink_to("/dev/zero")
    (root / "broken.png").symlink_to(root / "nothing")
    (root / "self.png").symlink_to(root / "self.png")
    (root / "captions.jsonl").symlink_to("/dev/zero")


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    root = write_files(tmp_path / "set", {"a.png": png(), "a.txt": "fine"})
    special(root)
    with open(root / "sparse.png", "wb") as file:
        file.truncate(30 * 2**30)
    found = open_set(root)
    assert texts(found) == {"a": ["fine"]}
    assert {fault.key for fault in found.faults if fault.kind == "corrupt"} == {
        "pipe", "socket", "zero", "broken", "self", "sparse",
    }  # fmt: skip
    assert {fault.key for fault in found.faults if fault.kind == "special"} == {
        "captions.jsonl", "pipe.bin", "pipe.parquet", "pipe.tar", "pipe.txt", "zero.jsonl",
    }  # fmt: skip


def test_a_picture_that_becomes_a_pipe_later(tmp_path: Path) -> None:
    from sanakit.base.errors import PictureError

    found = open_set(write_files(tmp_path, {"a.png": png()}))
    (tmp_path / "a.png").unlink()
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(PictureError, match="it is a named pipe"):
        found.read(0)


def test_links_that_lead_back_or_out_of_all_bounds_are_not_followed(tmp_path: Path) -> None:
    root = write_files(tmp_path / "above" / "set", {"a.png": png(), "below/b.png": png(seed=1)})
    (root / "up").symlink_to(tmp_path / "above")
    (root / "everything").symlink_to("/")
    (root / "below" / "loop").symlink_to(root)
    found = open_set(root)
    assert list(texts(found)) == ["a", "below/b"]
    assert [(fault.key, fault.kind) for fault in found.faults] == [
        ("everything/", "ignored"),
        ("up/", "ignored"),
    ]


def test_folders_in_folders_without_end(tmp_path: Path) -> None:
    root = write_files(tmp_path, {"a.png": png()})
    place = os.open(root, os.O_RDONLY)
    for _ in range(1200):  # deeper than Python calls itself, and than a path may be long
        os.mkdir("d", dir_fd=place)
        below = os.open("d", os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = below
    os.close(place)
    try:
        found = open_set(root)
        assert list(texts(found)) == ["a"]
        assert [fault.kind for fault in found.faults] == ["ignored"]
    finally:  # pytest's own removal calls itself for every folder, and would end the run
        subprocess.run(["rm", "-rf", str(root / "d")], check=True)


def test_labels_are_not_added_to_a_pipe(tmp_path: Path) -> None:
    from sanakit.base.errors import OutputError

    os.mkfifo(tmp_path / "captions.jsonl")
    with pytest.raises(OutputError, match="it is a named pipe"):
        write_captions(tmp_path, {"a": [Caption(text="x")]})


def test_names_with_line_breaks_are_not_listed(tmp_path: Path) -> None:
    root = write_files(
        tmp_path / "set", {"a\nb.png": png(), "a\u2028c.png": png(seed=1), "d.png": png(seed=2)}
    )
    found = open_set(root)
    assert write_keys(tmp_path / "list.txt", [item.key for item in found]) == ["a\nb"]
    assert [found[index].key for index in indices_of(found, read_keys(tmp_path / "list.txt"))] == [
        "a\u2028c",
        "d",
    ]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_list_of_keys_as_windows_writes_it(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "list.txt").write_bytes("a\r\n\r\nsub/ä\r\n".encode(encoding))
    assert read_keys(tmp_path / "list.txt") == ["a", "sub/ä"]


def test_a_list_in_no_unicode_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"a\ncaf\xe9\n")
    with pytest.raises(DataError, match="not UTF-8 at byte 5"):
        read_keys(tmp_path / "list.txt")
