"""The records of a zip file as PyTorch writes it: where each lies, and its checksum. Nothing is unpacked.

Read by hand because the readers at hand trust the directory: here no record overlaps another, none is compressed, and
each lies inside the file.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from sanakit.base.errors import WeightsError

_END = b"PK\x05\x06"
_END_LARGE = b"PK\x06\x06"
_LOCATOR = b"PK\x06\x07"
_ENTRY = b"PK\x01\x02"
_LOCAL = b"PK\x03\x04"
_END_BYTES, _LOCATOR_BYTES, _ENTRY_BYTES, _LOCAL_BYTES = 22, 20, 46, 30
_COMMENT_BYTES = 0xFFFF  # the longest comment that may follow the end
_FULL = 0xFFFFFFFF  # stands in a field of 4 bytes whose value needs 8
# A checkpoint of the largest published model with its optimizer has some ten thousand tensors.
_MAX_RECORDS = 500_000
_MAX_DIRECTORY = 64 * 2**20
_MAX_NAME = 512
_PIECE = 1 << 24


@dataclass(frozen=True, slots=True)
class ZipRecord:
    """Bytes begin..end of the file; crc: CRC-32 of them as the directory has it."""

    begin: int
    end: int
    crc: int


def is_zip(data: memoryview) -> bool:
    """Return whether a file begins as a zip file does."""
    return bytes(data[:4]) == _LOCAL


def read_records(data: memoryview, where: str) -> dict[str, ZipRecord]:
    """Name -> record. Raises WeightsError, one sentence, for what is damaged or what PyTorch does not write."""
    try:
        begin, end, count = _directory(data)
        if end - begin > _MAX_DIRECTORY or count > _MAX_RECORDS:
            raise WeightsError(f"{where} lists {count} records: that isn't a checkpoint of SANA")
        records: dict[str, ZipRecord] = {}
        heads: list[tuple[int, int]] = []
        for name, place, record in _entries(data, begin, end, where):
            if name in records:
                raise WeightsError(f"{where} holds {name[:80]!r} twice: the file is damaged")
            records[name] = record
            heads.append((place, record.end))
        if len(records) != count:
            raise ValueError("the directory lists another number of records")
        _check_layout(heads, begin)
    except (struct.error, ValueError, OverflowError) as error:  # UnicodeDecodeError is a ValueError
        raise WeightsError(f"{where} is truncated or damaged: fetch it again") from error
    return records


def _directory(data: memoryview) -> tuple[int, int, int]:
    """Begin, end and number of entries of the directory. Raises struct.error or ValueError."""
    tail = max(0, len(data) - _END_BYTES - _COMMENT_BYTES)
    found = bytes(data[tail:]).rfind(_END)
    if found < 0:
        raise ValueError("no end of directory")
    place = tail + found
    *_, count, size, begin, comment = struct.unpack_from("<4s4H2LH", data, place)
    if place + _END_BYTES + comment != len(data):
        raise ValueError("bytes after the end")
    limit = place
    if bytes(data[place - _LOCATOR_BYTES : place][:4]) == _LOCATOR and place >= _LOCATOR_BYTES:
        _, _, limit, _ = struct.unpack_from("<4sLQL", data, place - _LOCATOR_BYTES)
        mark, *_, count, size, begin = struct.unpack_from("<4sQ2H2L4Q", data, limit)
        if mark != _END_LARGE:
            raise ValueError("no large end of directory")
    if begin + size > limit or limit > place:
        raise ValueError("the directory is outside the file")
    return begin, begin + size, count


def _entries(data: memoryview, place: int, end: int, where: str) -> Iterator[tuple[str, int, ZipRecord]]:
    """Name, place of the local header and record of each entry."""
    while place < end:
        head = struct.unpack_from("<4s6H3L5H2L", data, place)
        mark, flags, method, crc, packed, size = head[0], head[3], head[4], *head[7:10]
        name_bytes, extra_bytes, comment_bytes, local = *head[10:13], head[16]
        if mark != _ENTRY or flags & 1:
            raise ValueError("no entry of a directory, or an encrypted one")
        after = place + _ENTRY_BYTES + name_bytes
        if name_bytes > _MAX_NAME:
            raise WeightsError(f"{where} has a record whose name has {name_bytes} bytes: no checkpoint has")
        name = bytes(data[place + _ENTRY_BYTES : after]).decode()
        if _FULL in (size, packed, local):
            size, packed, local = _large(bytes(data[after : after + extra_bytes]), size, packed, local)
        if method or packed != size:
            raise WeightsError(f"{where} has compressed records, which PyTorch never writes: save it again")
        yield name, local, _record(data, local, size, crc, name)
        place = after + extra_bytes + comment_bytes
    if place != end:
        raise ValueError("the directory is longer than its size")


def _large(extra: bytes, *fields: int) -> list[int]:
    """Return the fields, those that are full replaced by the 8-byte values of extra field 1."""
    while extra:
        kind, size = struct.unpack_from("<2H", extra)
        if kind == 1:
            values = list(struct.unpack_from(f"<{size // 8}Q", extra, 4))
            return [values.pop(0) if field == _FULL and values else field for field in fields]
        extra = extra[4 + size :]
    return list(fields)


def _record(data: memoryview, local: int, size: int, crc: int, name: str) -> ZipRecord:
    """Return the record behind a local header, whose name must agree with the directory's."""
    mark, *_, name_bytes, extra_bytes = struct.unpack_from("<4s5H3L2H", data, local)
    first = local + _LOCAL_BYTES
    if mark != _LOCAL or bytes(data[first : first + name_bytes]) != name.encode():
        raise ValueError("the directory and a record disagree")
    begin = first + name_bytes + extra_bytes
    return ZipRecord(begin, begin + size, crc)


def _check_layout(heads: list[tuple[int, int]], end: int) -> None:
    """Raise ValueError unless header and bytes of each record lie behind those of the one before."""
    position = 0
    for head, record_end in sorted(heads):
        if head < position:
            raise ValueError("records overlap")
        position = record_end
    if position > end:
        raise ValueError("a record reaches into the directory")


def checksums(data: memoryview, records: dict[str, ZipRecord], where: str) -> bool:
    """Compare the bytes of all records with their CRC-32. Raises WeightsError for the first that differs.

    Returns False if the file has none to compare with: PyTorch can be told to write zeros.
    """
    if not any(record.crc for record in records.values()):
        return False
    for name, record in records.items():
        found = 0
        for begin in range(record.begin, record.end, _PIECE):
            found = zlib.crc32(data[begin : min(begin + _PIECE, record.end)], found)
        if found != record.crc:
            raise WeightsError(f"{where}: record {name!r} is damaged (its checksum differs): fetch it again")
    return True
