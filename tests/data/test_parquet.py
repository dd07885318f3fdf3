"""Parquet: pictures in a column, as hubs hold them, tables beside pictures, and columns of every odd type."""

from __future__ import annotations

import datetime
import decimal
import pickle
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from sanakit.base.errors import DataError, PictureError
from sanakit.data import Caption, PictureSet, examine, open_set
from tests.data.pictures import jpeg, png, write_files


def write(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(columns), path, **options)
    return path


def texts(found: PictureSet) -> dict[str, list[str]]:
    return {item.key: [caption.text for caption in item.captions] for item in found}


HUB = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])


@pytest.mark.parametrize("compression", ["snappy", "zstd", "none"])
def test_pictures_in_a_column_as_hubs_hold_them(tmp_path: Path, compression: str) -> None:
    data = [png(40, 30), jpeg(20, 50, orientation=6), png(seed=2), png(seed=3)]
    images = pyarrow.array([{"bytes": one, "path": "same.png"} for one in data], HUB)
    path = write(
        tmp_path / "train-00000-of-00001.parquet",
        {"image": images, "text": ["one", "two", None, "four"], "label": [1, 2, 3, 4]},
        row_group_size=3, compression=compression,
    )  # fmt: skip
    for place in (path, tmp_path):
        found = open_set(place)
        keys = [f"{path.name}/{row:07d}" for row in range(4)]
        assert texts(found) == dict(zip(keys, [["one"], ["two"], [], ["four"]], strict=True))
        assert [(item.width, item.height) for item in found][:2] == [(40, 30), (50, 20)]
        assert [found.read(index) for index in (3, 0, 2, 1)] == [data[index] for index in (3, 0, 2, 1)]
        assert pickle.loads(pickle.dumps(found)).read(1) == data[1]
        assert all(finding.image_hash is not None for finding in examine(found))
        assert found.faults == ()


@pytest.mark.parametrize("name", ["image", "jpg", "bytes"])
@pytest.mark.parametrize("kind", [pyarrow.binary(), pyarrow.large_binary()])
def test_pictures_in_a_plain_column_of_bytes(tmp_path: Path, name: str, kind: pyarrow.DataType) -> None:
    columns = {"caption": [["a", "b"]], "score": [31.0], name: pyarrow.array([png()], kind)}
    (item,) = open_set(write(tmp_path / "a.parquet", columns))
    assert [caption.text for caption in item.captions] == ["a", "b"]


def test_rows_that_hold_no_picture(tmp_path: Path) -> None:
    root = write_files(tmp_path, {"sub/b.png": png(seed=1)})
    images = [
        {"bytes": png(), "path": None}, {"bytes": None, "path": "sub/b.png"}, {"bytes": b"rubbish", "path": "c.png"},
        {"bytes": b"", "path": None}, None, {"bytes": None, "path": "gone.png"},
    ]  # fmt: skip
    write(root / "a.parquet", {"image": pyarrow.array(images, HUB), "text": list("abcdef")})
    found = open_set(root)
    assert texts(found) == {"a.parquet/0000000": ["a"], "sub/b": ["b"]}
    assert sorted((fault.key, fault.kind, fault.count) for fault in found.faults) == [
        ("a.parquet", "corrupt", 2), ("a.parquet", "lost", 1), ("a.parquet/0000002", "corrupt", 1),
    ]  # fmt: skip


MOMENT = datetime.datetime(2024, 5, 1, tzinfo=datetime.UTC)
ODD: dict[str, Any] = {
    "timestamp": pyarrow.array([0, 2**62], pyarrow.timestamp("ns")),
    "timestamp of no time zone": pyarrow.array([0, 1], pyarrow.timestamp("s", tz="No/Where")),
    "timestamp after all years": pyarrow.array([0, 2**55], pyarrow.timestamp("ms")),
    "date": [datetime.date(2024, 5, 1)] * 2,
    "date after all years": pyarrow.array([0, 2**30], pyarrow.date32()),
    "time": pyarrow.array([1, 2], pyarrow.time64("ns")),
    "duration": pyarrow.array([1, 2**62], pyarrow.duration("s")),
    "decimal": [decimal.Decimal("1.5"), decimal.Decimal("2.5")],
    "list of moments": [[MOMENT], None],
    "struct": [{"a": 1}, {"a": None}],
    "map": pyarrow.array([[("a", 1)], []], pyarrow.map_(pyarrow.string(), pyarrow.int64())),
    "null": pyarrow.nulls(2),
    "boolean": [True, False],
    "half": pyarrow.array([1.5, 2.5], pyarrow.float32()),
    "whole": [2**62, -1],
    "list of lists": [[["a"]], [[None]]],
    "categories": pyarrow.array(["x", "y"]).dictionary_encode(),
    "nan": [float("nan"), float("inf")],
}


@pytest.mark.parametrize("field", ["text", "score", "source", "file_name"])
@pytest.mark.parametrize("kind", ODD)
def test_columns_of_odd_types_are_faults_of_their_rows(tmp_path: Path, kind: str, field: str) -> None:
    root = write_files(tmp_path, {"a.png": png(), "b.png": png(seed=1), "b.txt": "beside"})
    columns = {"key": ["a", "b"], "caption": ["one", "two"], field: ODD[kind]}
    write(root / "table.parquet", columns)
    inside = {"image": [{"bytes": png(seed=2), "path": "x"}, {"bytes": png(seed=3), "path": "y"}]}
    write(root / "pictures.parquet", inside | columns)
    found = open_set(root)
    assert [item.key for item in found] == ["a", "b", "pictures.parquet/0000000", "pictures.parquet/0000001"]
    assert Caption(text="beside") in found[1].captions
    assert all(len(fault.text) < 500 for fault in found.faults)
    for item in found:
        assert all(caption.score is None or abs(caption.score) <= 100 for caption in item.captions)


@pytest.mark.parametrize("place", [0, 4, 300, -200, -8])
def test_a_damaged_file_is_a_fault(tmp_path: Path, place: int) -> None:
    root = write_files(tmp_path, {"a.png": png()})
    images = pyarrow.array([{"bytes": png(seed=n), "path": None} for n in range(4)], HUB)
    path = write(root / "x.parquet", {"image": images, "text": ["x"] * 4})
    data = bytearray(path.read_bytes())
    data[place : len(data) + place + 40 if place < 0 else place + 40] = b"\xff" * 40
    path.write_bytes(data)
    found = open_set(root)
    assert found[0].key == "a"
    assert found.faults or len(found) == 5


def test_a_file_that_goes_or_changes_later(tmp_path: Path) -> None:
    images = pyarrow.array([{"bytes": png(seed=n), "path": None} for n in range(2)], HUB)
    path = write(tmp_path / "x.parquet", {"image": images})
    found = open_set(path)
    assert found.read(1) == png(seed=1)
    write(path, {"image": images[:1]})
    with pytest.raises(PictureError, match="can't be read"):
        found.read(1)
    path.unlink()
    with pytest.raises(PictureError, match="can't be read"):
        found.read(0)


def test_a_file_of_nothing_is_no_set(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", {"image": pyarrow.array([], HUB)})
    with pytest.raises(DataError, match="no picture in"):
        open_set(path)
