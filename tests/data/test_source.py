"""Opening: every form of a set, what is wrong with each, and labels that are written beside it."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanakit.base.errors import DataError, PictureError
from sanakit.data import Caption, PictureSet, examine, open_set, write_captions
from sanakit.data.shards import expand_braces
from tests.data.pictures import jpeg, picture, png, write_files, write_tar


def texts(found: PictureSet) -> dict[str, list[str]]:
    return {item.key: [caption.text for caption in item.captions] for item in found}


def kinds(found: PictureSet) -> list[tuple[str, str]]:
    return [(fault.key, fault.kind) for fault in found.faults]


def test_a_folder_with_texts(tmp_path: Path) -> None:
    root = write_files(
        tmp_path,
        {
            "b.png": png(40, 30),
            "b.txt": "\ufeffa  red\n cube \n",
            "sub/a.JPG": jpeg(50, 20, orientation=6),
            "sub/a.txt": "a tall one",
            "none.webp": png(),
            "blank.png": png(seed=3),
            "blank.txt": "  \n",
            "README.txt": "not a caption",
            ".hidden.png": png(),
            ".thumbs/c.png": png(),
        },
    )
    found = open_set(root)
    assert texts(found) == {"b": ["a red cube"], "blank": [], "none": [], "sub/a": ["a tall one"]}
    assert [(item.width, item.height) for item in found] == [(40, 30), (64, 64), (64, 64), (20, 50)]
    assert found.faults == ()
    assert found.read(0) == (root / "b.png").read_bytes()
    again = pickle.loads(pickle.dumps(found))
    assert list(again) == list(found)
    assert again.read(3) == found.read(3)


def test_captions_of_json_and_of_both_tables(tmp_path: Path) -> None:
    lines = [
        {"file_name": "b.png", "text": "from metadata", "score": 21},
        {"file_name": "./c.png", "caption": ["one", "two"]},
    ]
    labels = {"key": "sub/c", "captions": [{"text": "labelled", "score": 30.5, "source": "m"}, "plain"]}
    found = open_set(
        write_files(
            tmp_path,
            {
                "sub/b.png": png(),
                "sub/b.json": json.dumps({"prompt": "beside", "score": 3, "source": "x", "other": [1]}),
                "sub/c.png": png(seed=1),
                "sub/metadata.jsonl": "\n".join(map(json.dumps, lines)),
                "captions.jsonl": json.dumps(labels) + "\n\n",
            },
        )
    )
    beside = Caption(text="beside", score=3.0, source="x")
    assert found[0].captions == (beside, Caption(text="from metadata", score=21.0))
    labelled = Caption(text="labelled", score=30.5, source="m")
    assert found[1].captions == (Caption(text="one"), Caption(text="two"), labelled, Caption(text="plain"))
    assert found.faults == ()


def test_captions_of_parquet(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    root = write_files(tmp_path, {"a.png": png(), "b.png": png(seed=1)})
    table = {
        "file_name": ["a.png", "b.png"],
        "caption": ["first", "second"],
        "score": [22.5, None],
        "junk": [1, 2],
    }
    pyarrow.parquet.write_table(pyarrow.table(table), root / "labels.parquet")
    found = open_set(root)
    assert found[0].captions == (Caption(text="first", score=22.5),)
    assert found[1].captions == (Caption(text="second"),)

    pyarrow.parquet.write_table(pyarrow.table({"label": [1], "text": ["a"]}), root / "labels.parquet")
    (fault,) = open_set(root).faults
    assert (fault.key, fault.kind) == ("labels.parquet", "record")
    assert "no column 'key' or 'file_name'" in fault.text
    (root / "labels.parquet").write_bytes(b"PAR1 rubbish")
    (fault,) = open_set(root).faults
    assert "labels.parquet can't be read as a Parquet file" in fault.text
    wrong = pyarrow.array([b"caf\xe9"], pyarrow.binary()).view(pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table({"key": ["a"], "text": wrong}), root / "labels.parquet")
    (fault,) = open_set(root).faults
    assert (fault.kind, "not UTF-8 at its byte 3" in fault.text) == ("encoding", True)


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_files(tmp_path, {"a.png": png(), "labels.parquet": b"PAR1"})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r'labels.parquet needs pyarrow .* pip install "sanakit\[data\]"'):
        open_set(root)


def test_faults_of_a_folder(tmp_path: Path) -> None:
    table = [
        b'{"file_name": "good.png", "text": "fine"}',
        b'{"file_name": "good.png", "text": "caf\xe9"}',
        b'{"file_name": "good.png", "text": ',
        b'{"text": "of what?"}',
        b"[1]",
        b'{"file_name": "good.png", "text": 7}',
        b'{"file_name": "good.png", "text": "a", "score": "high"}',
        b'{"file_name": "gone.png", "text": "lost"}',
        b'{"file_name": "..", "text": "nowhere"}',
        b"[" * 100_000,
    ]
    found = open_set(
        write_files(
            tmp_path,
            {
                "good.png": png(),
                "good.jpg": jpeg(),
                "broken.png": b"not a picture",
                "empty.jpg": b"",
                "latin.png": png(seed=2),
                "latin.txt": "a caf\xe9".encode("latin-1"),
                "metadata.jsonl": b"\n".join(table),
                "train.jsonl": b"{}",
                "old.tar.gz": b"\x1f\x8b",
            },
        )
    )
    assert texts(found) == {"good": ["fine", "a"], "latin": []}
    said = {(fault.key, fault.kind): fault.text for fault in found.faults}
    assert sorted(kind for key, kind in kinds(found) if key == "metadata.jsonl") == [
        "encoding", "lost", *["record"] * 6, "score",
    ]  # fmt: skip
    assert "good.jpg" not in said[("good", "twice")] and "good.png" in said[("good", "twice")]
    assert ("broken", "corrupt") in said
    assert "empty.jpg: it is empty" in said[("empty", "corrupt")]
    assert said[("latin", "encoding")] == "latin.txt is not UTF-8 at byte 5"
    where = b"\n".join(table).index(b"\xe9")
    assert f"line 2 of metadata.jsonl is not UTF-8 at byte {where}" in said[("metadata.jsonl", "encoding")]
    assert "the first of 'gone'" in said[("metadata.jsonl", "lost")]
    assert "captions.jsonl" in said[("train.jsonl", "ignored")]
    assert "unpack" in said[("old.tar.gz", "shard")]


MEMBERS = {
    "0.png": png(50, 40),
    "0.txt": "zero",
    "d/1.jpg": jpeg(60, 30, orientation=8),
    "d/1.json": '{"captions": ["one", "eins"]}',
    "d/1.cls": "7",
    "2.png": png(seed=2),
    "2.txt": b"\xff",
    "._2.png": b"resource fork",
}


def test_a_shard(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "00.tar", MEMBERS)
    found = open_set(shard)
    assert texts(found) == {"00.tar/0": ["zero"], "00.tar/2": [], "00.tar/d/1": ["one", "eins"]}
    assert [(item.width, item.height) for item in found] == [(50, 40), (64, 64), (30, 60)]
    assert [found.read(index) for index in range(3)] == [
        MEMBERS[name] for name in ("0.png", "2.png", "d/1.jpg")
    ]
    assert [fault.text for fault in found.faults] == ["00.tar/2.txt is not UTF-8 at byte 0"]


def test_shards_of_a_folder_and_of_a_pattern_have_the_same_keys(tmp_path: Path) -> None:
    for number in (8, 9, 10):
        write_tar(tmp_path / f"s-{number:02d}.tar", {"a.png": png(seed=number), "a.txt": f"{number}"})
    folder, pattern = open_set(tmp_path), open_set(tmp_path / "s-{08..10}.tar")
    assert texts(folder) == texts(pattern) == {f"s-{n:02d}.tar/a": [str(n)] for n in (8, 9, 10)}
    part = open_set(tmp_path / "s-{09,11}.tar")
    assert texts(part) == {"s-09.tar/a": ["9"]}
    assert "s-11.tar can't be read: No such file" in part.faults[0].text
    assert expand_braces("{a,b}-{2..1}.tar") == ["a-2.tar", "a-1.tar", "b-2.tar", "b-1.tar"]
    assert expand_braces("odd{name}.tar") == ["odd{name}.tar"]


def test_what_can_be_read_of_a_cut_shard_is_used(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "whole.tar", MEMBERS).read_bytes()
    cut = tmp_path / "cut.tar"
    for length in range(512, len(whole) - 10240, 512):
        cut.write_bytes(whole[:length])
        try:
            found = open_set(cut)
        except DataError as error:
            assert "cut.tar" in str(error)
            continue
        assert [fault for fault in found.faults if fault.kind == "shard"], length
        for index, item in enumerate(found):
            name = {"cut.tar/0": "0.png", "cut.tar/2": "2.png", "cut.tar/d/1": "d/1.jpg"}[item.key]
            assert found.read(index) == MEMBERS[name]
    assert "cut.tar ends at byte" in found.faults[-1].text or "byte" in found.faults[0].text


def test_a_damaged_head_inside_a_shard(tmp_path: Path) -> None:
    import tarfile

    shard = write_tar(tmp_path / "a.tar", MEMBERS)
    with tarfile.open(shard) as tar:
        where = tar.getmembers()[2].offset
    data = bytearray(shard.read_bytes())
    data[where : where + 512] = b"x" * 512
    shard.write_bytes(data)
    found = open_set(shard)
    assert texts(found) == {"a.tar/0": ["zero"]}
    assert f"damaged at byte {where}" in found.faults[0].text


def test_labels_are_merged_and_nothing_of_the_user_is_lost(tmp_path: Path) -> None:
    own = b'{"file_name": "a.png", "text": "own words"}\nnot json \xff\n{"key": "b", "text": "of b"}\n'
    root = write_files(tmp_path, {"a.png": png(), "b.png": png(seed=1), "captions.jsonl": own})
    write_captions(root, {"a": [Caption(text="model's", source="m")]})
    write_captions(
        root, {"a": [Caption(text="model's", source="m", score=27.0), Caption(text="own words", score=25.0)]}
    )
    assert (root / "captions.jsonl").read_bytes().startswith(own)
    found = open_set(root)
    scored = (Caption(text="own words", score=25.0), Caption(text="model's", source="m", score=27.0))
    assert found[0].captions == scored
    assert texts(found)["b"] == ["of b"]
    assert len((root / "captions.jsonl").read_bytes().splitlines()) == 4


def test_labels_of_shards_lie_beside_them(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "00.tar", MEMBERS)
    write_captions(
        shard, {"00.tar/2": [Caption(text="two", score=1.5)], "01.tar/0": [Caption(text="elsewhere")]}
    )
    for path in (shard, tmp_path, tmp_path / "0{0,1}.tar"):
        assert texts(open_set(path))["00.tar/2"] == ["two"]
    assert [fault.kind for fault in open_set(shard).faults] == ["encoding"]


def test_a_picture_that_goes_or_shrinks_later(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "00.tar", MEMBERS)
    root = write_files(tmp_path / "folder", {"a.png": png()})
    packed, loose = open_set(shard), open_set(root)
    shard.write_bytes(shard.read_bytes()[:700])
    with pytest.raises(PictureError, match="ends at byte 700, inside a picture"):
        packed.read(0)
    (root / "a.png").write_bytes(b"")
    with pytest.raises(PictureError, match="a is empty"):
        loose.read(0)
    (root / "a.png").unlink()
    with pytest.raises(PictureError, match="can't be read: No such file"):
        loose.read(0)


def test_a_long_head_is_read_to_its_end(tmp_path: Path) -> None:
    picture(40, 30).save(tmp_path / "a.jpg", comment=b"x" * 60000, exif=b"Exif\0\0" + bytes(60000))
    assert (open_set(tmp_path)[0].width, open_set(tmp_path)[0].height) == (40, 30)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("absent", "nothing at"),
        ("a-{0..3}.tar", "nothing at"),
        ("file.txt", "neither a folder nor a tar shard"),
        ("none.tar", "none.tar isn't a tar file"),
        ("empty", "no picture in"),
    ],
)
def test_what_is_no_set_is_refused(tmp_path: Path, name: str, words: str) -> None:
    write_files(tmp_path, {"file.txt": "hello", "none.tar": "hello" * 400, "empty/readme.md": "x"})
    with pytest.raises(DataError, match=words):
        open_set(tmp_path / name)


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    root = write_files(tmp_path / "set", {"a.png": png(), "below/b.png": png()})
    other = write_files(tmp_path / "other", {"c.png": png()})
    (root / "linked").symlink_to(other)
    (root / "below" / "loop").symlink_to(root)
    assert list(texts(open_set(root))) == ["a", "below/b", "linked/c"]


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    root = write_files(tmp_path, {"a.png": png()})
    (root / "caf\udce9.png").write_bytes(png())
    (root / "caf\udce9.txt").write_bytes(b"named in Latin-1")
    (root / "b\udcff.png").write_bytes(b"broken")
    found = open_set(root)
    assert texts(found) == {"a": [], "caf?": ["named in Latin-1"]}
    assert found.read(1) == png()
    assert found.faults[0].text.startswith("b?.png: ")


@given(st.data())
def test_damage_anywhere_ends_in_faults_or_a_data_error(tmp_path_factory, data: st.DataObject) -> None:
    """Bytes of a shard and of a table are replaced: opening and reading either work or refuse in our words."""
    folder = tmp_path_factory.mktemp("damaged")
    shard = bytearray(write_tar(folder / "a.tar", MEMBERS).read_bytes())
    table = bytearray(b'{"key": "a.tar/0", "captions": [{"text": "x", "score": 1.5, "source": "m"}]}\n' * 2)
    for content in (shard, table):
        for _ in range(data.draw(st.integers(0, 6))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    write_files(folder, {"a.tar": bytes(shard), "captions.jsonl": bytes(table)})
    try:
        found = open_set(folder)
    except DataError:
        return
    for finding in examine(found, workers=1):
        assert (finding.image_hash is None) == bool(finding.error)
    json.dumps([[fault.key, fault.text] for fault in found.faults], ensure_ascii=False).encode()


def test_an_index_spares_reading_and_knows_when_a_shard_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard, index = write_tar(tmp_path / "00.tar", MEMBERS), tmp_path / "index"
    plain = open_set(shard)
    first = open_set(shard, index=index)
    with monkeypatch.context() as patch:
        patch.setattr("sanakit.data.shards.read_shard", None)
        again = open_set(shard, index=index)
    for found in (first, again):
        assert (list(found), found.faults) == (list(plain), plain.faults)
        assert [found.read(n) for n in range(3)] == [plain.read(n) for n in range(3)]
    write_tar(shard, {**MEMBERS, "3.png": png(seed=3)})
    assert len(open_set(shard, index=index)) == 4
    (file,) = index.iterdir()
    file.write_text('{"stamp": ')
    assert len(open_set(shard, index=index)) == 4
    shard.write_bytes(shard.read_bytes()[:9000])
    for _ in range(2):
        assert [fault.kind for fault in open_set(shard, index=index).faults][-1] == "shard"
    missing = open_set(tmp_path / "0{0..1}.tar", index=index)
    assert "01.tar can't be read" in missing.faults[-1].text


def test_counts_are_announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sanakit.data.set_builder._PROGRESS_EVERY", 2)
    counts: list[int] = []
    open_set(write_files(tmp_path, {f"{n}.png": png(8, 8) for n in range(5)}), on_progress=counts.append)
    assert counts == [2, 4]
    write_tar(tmp_path / "shard" / "0.tar", {f"{n}.png": png(8, 8) for n in range(5)})
    for _ in range(2):
        counts.clear()
        open_set(tmp_path / "shard", on_progress=counts.append, index=tmp_path / "index")
        assert counts == [5]
