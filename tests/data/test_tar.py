"""Tar files of strangers: what a member is and where it lies, and a sentence for the first thing that is wrong."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from sanakit.base.errors import DataError
from sanakit.data import open_set
from sanakit.data.shards import MOST_NAMES, expand_braces
from sanakit.data.tar import TarError, members
from tests.data.pictures import png

DATA = png(40, 30)


def tar_of(*parts: tuple[tarfile.TarInfo, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for member, content in parts:
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def info(
    name: str, size: int = len(DATA), kind: bytes = tarfile.REGTYPE, **fields: object
) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    for field, value in fields.items():
        setattr(member, field, value)
    return member


def header(name: str, kind: bytes, size: bytes, content: bytes = b"") -> bytes:
    """A header as nobody's library writes it, with a sum that holds."""
    block = bytearray(tarfile.TarInfo(name).tobuf(tarfile.USTAR_FORMAT))
    block[124 : 124 + len(size)] = size
    block[156:157] = kind
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + content + bytes(-len(content) % 512)


END = bytes(10240)
GOOD = header("good.png", b"0", b"%011o\0" % len(DATA), DATA)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize(
    "name",
    ["a.png", "d/" * 20 + "a.png", "long/" + "x" * 90 + "/" + "y" * 90 + ".png", "ä/猫.png", "./b.png"],
)
def test_members_are_those_of_pythons_reader(form: int, name: str) -> None:
    data = tar_of(
        (info(name), DATA), (info("folder", 0, tarfile.DIRTYPE), b""), (info("z.txt", 3), b"abc"), form=form
    )
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        expected = [(one.name, one.offset_data, one.size) for one in tar if one.isreg()]
    found = list(members(io.BytesIO(data), len(data)))
    assert [(one.name, one.offset, one.size) for one in found if one.kind == "file"] == expected
    assert [one.kind for one in found] == ["file", "folder", "file"]


ODD = {
    "hard link": (header("x.png", b"1", b"%011o\0" % 0), "x.png is a hard link"),
    "link": (header("x.png", b"2", b"%011o\0" % 0), "x.png is a link"),
    "device": (header("x.png", b"3", b"%011o\0" % 0), "x.png is a device"),
    "pipe": (header("x.png", b"6", b"%011o\0" % 0), "x.png is a named pipe"),
    "sparse": (header("x.png", b"S", b"%011o\0" % 512, bytes(512)), "x.png is a sparse file"),
    "unknown": (header("x.png", b"!", b"%011o\0" % 0), "x.png is of an unknown kind"),
    "pax sparse": (
        header("p", b"x", b"%011o\0" % 24, b"24 GNU.sparse.major=1\n\0\0")
        + header("x.png", b"0", b"%011o\0" % 512, bytes(512)),
        "x.png is a sparse file",
    ),
    "pax of rubbish": (header("p", b"x", b"%011o\0" % 600, b"\xff" * 600) + header("x.png", b"0", b"0" * 11), "empty"),
    "pax of numbers": (
        header("p", b"x", b"%011o\0" % 5000, b"9" * 5000) + header("x.png", b"0", b"0" * 11), "x.png: it is empty",
    ),
    "long name": (
        header("p", b"L", b"%011o\0" % 9000, b"n" * 9000) + header("x.png", b"0", b"0" * 11), "name that is too long",
    ),
    "empty": (header("x.png", b"0", b"0" * 11), "x.png: it is empty"),
    "no picture": (header("x.png", b"0", b"%011o\0" % 9, b"no pixels"), "a picture of a known form"),
    "again": (header("good.png", b"0", b"%011o\0" % len(DATA), DATA), "good.png has the name of another picture"),
    "tar in tar": (header("in.tar", b"0", b"%011o\0" % 10240, END), "1 file .tar, the first is"),
    "foreign": (header("x.heic", b"0", b"%011o\0" % 4, b"heic"), "1 file .heic, the first is"),
    "caption that is no text": (header("good.txt", b"0", b"%011o\0" % 2, b"\xff\xfd"), "good.txt is not UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_an_odd_member_is_a_fault_and_its_neighbours_are_used(tmp_path: Path, name: str) -> None:
    part, words = ODD[name]
    last = header("last.png", b"0", b"%011o\0" % len(DATA), DATA)
    (tmp_path / "a.tar").write_bytes(GOOD + part + last + END)
    found = open_set(tmp_path / "a.tar")
    assert [item.key for item in found] == ["a.tar/good", "a.tar/last"]
    assert [found.read(index) for index in (0, 1)] == [DATA, DATA]
    assert [words in fault.text for fault in found.faults] == [True], found.faults


DAMAGE = {
    "size below zero": (header("x.png", b"0", b"\xff" * 12), "is damaged at byte"),
    "size beyond the file": (header("x.png", b"0", b"\x80" + b"\0" * 3 + b"\xff" * 8), "inside x.png: it was cut"),
    "size of letters": (header("x.png", b"0", b"size!\0"), "is damaged at byte"),
    "pax size of letters": (
        header("p", b"x", b"%011o\0" % 16, b"16 size=%s\n" % (b"-1" + b" " * 5)) + header("x.png", b"0", b"0" * 11),
        "is damaged at byte",
    ),
    "pax size of thousands of digits": (
        header("p", b"x", b"%011o\0" % 5011, b"5011 size=%s\n" % (b"9" * 5000)) + header("x.png", b"0", b"0" * 11),
        "is damaged at byte",
    ),
    "pax beyond the file": (header("p", b"x", b"%011o\0" % 10**9), "it was cut"),
    "sum": (b"x" + header("x.png", b"0", b"0" * 11)[1:-1] + b"y", "is damaged at byte"),
    "end mark in the middle": (bytes(1024), "has an end mark at byte"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_what_stands_before_damage_is_used(tmp_path: Path, name: str) -> None:
    part, words = DAMAGE[name]
    (tmp_path / "a.tar").write_bytes(GOOD + part + GOOD.replace(b"good", b"late") + END)
    found = open_set(tmp_path / "a.tar")
    assert [item.key for item in found] == ["a.tar/good"]
    (fault,) = found.faults
    assert (fault.key, fault.kind) == ("a.tar", "shard")
    assert words in fault.text and len(fault.text) < 200


def test_names_do_not_leave_their_shard(tmp_path: Path) -> None:
    parts = [
        header(name, b"0", b"%011o\0" % len(DATA), DATA)
        for name in ("/etc/a.png", "../../b.png", "x/../c.png")
    ]
    (tmp_path / "a.tar").write_bytes(b"".join(parts) + END)
    assert [item.key for item in open_set(tmp_path)] == ["a.tar/b", "a.tar/etc/a", "a.tar/x/c"]


def test_headers_of_gigabytes_are_not_read(tmp_path: Path) -> None:
    """A sparse file that claims an extended header of 20 GB is passed by in no memory at all."""
    path = tmp_path / "a.tar"
    size = 20 * 2**30
    path.write_bytes(GOOD + header("p", b"x", b"\x80" + size.to_bytes(11)))
    with open(path, "r+b") as file:
        file.seek(len(GOOD) + 512 + size)
        file.write(GOOD.replace(b"good.png", b"last.png", 1)[:0] + END)
    assert [item.key for item in open_set(path)] == ["a.tar/good"]


def test_random_bytes_end_in_members_or_a_tar_error() -> None:
    draw = np.random.default_rng(3)
    whole = GOOD + b"".join(part for part, _ in ODD.values()) + END
    for _ in range(300):
        harmed = bytearray(whole)
        for place in draw.integers(0, len(whole) - len(END), 12):
            harmed[place] = int(draw.integers(0, 256))
        try:
            found = list(members(io.BytesIO(bytes(harmed)), len(harmed)))
        except TarError as error:
            assert 0 <= error.at <= len(harmed)
            continue
        assert all(0 <= one.offset <= one.offset + one.size <= len(harmed) for one in found)


@pytest.mark.parametrize(
    "pattern",
    ["a-{0..20000000}.tar", "{0..999}{0..999}{0..999}.tar", "{0..999999999999999999}.tar", "{1,2}" * 40],
)
def test_a_pattern_for_millions_of_shards_is_refused(pattern: str) -> None:
    with pytest.raises(DataError, match=f"more than {MOST_NAMES:,} shards"):
        expand_braces(pattern)


def test_a_pipe_that_is_called_a_shard_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.tar")
    with pytest.raises(DataError, match="a.tar can't be read: it is a named pipe"):
        open_set(tmp_path / "a.tar")
