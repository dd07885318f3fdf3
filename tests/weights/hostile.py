"""Files of `torch.save` put together by hand: pickles opcode by opcode, zips record by record."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

STORAGE = b"ctorch\n%sStorage\n"


def text(value: str) -> bytes:
    """BINUNICODE."""
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    """LONG1, which holds any of them."""
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def numbers(values: Iterable[int]) -> bytes:
    """A tuple."""
    return b"(" + b"".join(map(number, values)) + b"t"


def storage(key: str, count: int, kind: bytes = b"Float") -> bytes:
    """A reference to a storage."""
    return b"(" + text("storage") + STORAGE % kind + text(key) + text("cpu") + number(count) + b"tQ"


def tensor(
    key: str, count: int, size: Iterable[int], stride: Iterable[int], offset: int = 0, kind: bytes = b"Float"
) -> bytes:
    """A tensor over a storage of `count` items."""
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + storage(key, count, kind) + number(offset) + numbers(size) + numbers(stride)
        + b"\x89ccollections\nOrderedDict\n)RtR"
    )  # fmt: skip


def state_dict(entries: dict[str, bytes], before: bytes = b"") -> bytes:
    """The pickle of {name: value}."""
    body = b"".join(text(name) + value for name, value in entries.items())
    return b"\x80\x02" + before + b"}(" + body + b"u."


def write_zip(path: Path, pickled: bytes, records: dict[str, bytes], *, deflate: bool = False) -> Path:
    """A file as `torch.save` lays it out."""
    kind = zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", kind) as file:
        for name, data in {"data.pkl": pickled, "version": b"3\n", **records}.items():
            file.writestr(f"archive/{name}", data)
    return path


def one_tensor(path: Path, value: bytes, data: bytes = bytes(48), **more: bytes) -> Path:
    """A file that holds `a`, over storage 0 with these bytes."""
    return write_zip(
        path, state_dict({"a": value}), {"data/0": data, **{f"data/{k}": v for k, v in more.items()}}
    )


def raw_zip(
    path: Path, entries: list[tuple[str, bytes]], *, size: int | None = None, local: int | None = None
) -> Path:
    """A zip whose last record claims another size, or lies where another does."""
    out, directory = io.BytesIO(), b""
    for position, (name, data) in enumerate(entries):
        last = position == len(entries) - 1
        length = size if last and size is not None else len(data)
        place = local if last and local is not None else out.tell()
        encoded, crc = name.encode(), zlib.crc32(data)
        head = struct.pack("<5H3L2H", 20, 0, 0, 0, 0, crc, length, length, len(encoded), 0)
        if place == out.tell():
            out.write(b"PK\x03\x04" + head + encoded + data)
        directory += b"PK\x01\x02\x14\x00" + head + struct.pack("<3H2L", 0, 0, 0, 0, place) + encoded
    end = struct.pack("<4H2LH", 0, 0, len(entries), len(entries), len(directory), out.tell(), 0)
    path.write_bytes(out.getvalue() + directory + b"PK\x05\x06" + end)
    return path
