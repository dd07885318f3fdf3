"""The members of a tar file, from headers alone, whatever a file that calls itself one may hold.

Python's own reader trusts what headers say: extended ones are read whole, and odd numbers in them end in errors of
every kind. Here every number is checked against the file, and what is wrong is a TarError that names the byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

_BLOCK = 512
_LONGEST_HEADER = 2**20  # bytes of an extended header
_LONGEST_NAME = 4096
_KINDS = {
    b"0": "file", b"\0": "file", b"7": "file", b"1": "a hard link", b"2": "a link", b"3": "a device",
    b"4": "a device", b"5": "folder", b"6": "a named pipe", b"S": "a sparse file",
}  # fmt: skip
_WITHOUT_DATA = (b"1", b"2", b"3", b"4", b"5", b"6")


class TarError(ValueError):
    """What is wrong with a tar file, as the rest of a sentence that begins with its name; `at` is the byte."""

    def __init__(self, at: int, message: str) -> None:
        super().__init__(message)
        self.at = at


@dataclass(frozen=True, slots=True)
class Member:
    """A thing in a tar file: "file", "folder", or in words what else. Its `size` bytes lie at `offset`."""

    name: str
    kind: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class _Header:
    name: str
    kind: bytes
    size: int


def members(file: BinaryIO, size: int) -> Iterator[Member]:
    """Yield all members of a file of `size` bytes, in their order. Raises TarError at the first damage, OSError."""
    at, said = 0, dict[str, str]()
    while True:
        header = _header(file, at, size)
        if header is None:
            _check_rest(file, at, size)
            return
        name, start = said.get("path", header.name), at + _BLOCK
        stored = 0 if header.kind in _WITHOUT_DATA else _size_of(said, header.size, at)
        if header.kind == b"S":
            start = _skip_sparse_map(file, at)
        if start + stored > size:
            raise TarError(size, f"ends at byte {size}, inside {name[:200]}: it was cut")
        at = start + -(-stored // _BLOCK) * _BLOCK
        if header.kind in (b"L", b"K", b"x", b"X", b"g"):
            said |= _said(file, header.kind, start, stored)
            continue
        sparse = any(key.startswith("GNU.sparse") for key in said)
        kind = "a sparse file" if sparse else _KINDS.get(header.kind, "of an unknown kind")
        if len(name) > _LONGEST_NAME:
            name, kind = name[:100], "of a name that is too long"
        yield Member(said.get("GNU.sparse.name", name), kind, start, stored)
        said = {}


def _header(file: BinaryIO, at: int, size: int) -> _Header | None:
    """Return the header at a byte, None for the end mark."""
    file.seek(at)
    block = file.read(_BLOCK)
    if len(block) < _BLOCK:
        if at == 0:
            raise TarError(0, "isn't a tar file (it is too short)")
        raise TarError(size, f"ends at byte {size} without an end mark: it may have been cut")
    if not block.strip(b"\0"):
        return None
    number, said = _number(block[124:136]), _number(block[148:156])
    plain = block[:148] + b" " * 8 + block[156:]
    signed = sum(byte - 256 if byte > 127 else byte for byte in plain)
    if number is None or said not in (sum(plain), signed):
        damage = f"is damaged at byte {at} of {size}: what follows is not read"
        raise TarError(at, damage if at else "isn't a tar file (it does not begin with a header)")
    name = _text(block[:100])
    if block[257:263] == b"ustar\0" and block[345]:
        name = f"{_text(block[345:500])}/{name}"
    return _Header(name, block[156:157], number)


def _number(field: bytes) -> int | None:
    """Parse octal digits, or base 256 if the first bit is set; None for anything else."""
    if field[0] & 0x80:
        found = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:])
        return None if field[0] & 0x40 else found  # negative
    digits = field.split(b"\0")[0].strip()
    if not digits:
        return 0
    return int(digits, 8) if all(48 <= digit < 56 for digit in digits) else None


def _said(file: BinaryIO, kind: bytes, start: int, size: int) -> dict[str, str]:
    """Read what an extended header states about the next member; nothing if it is too long or can't be read."""
    if kind in (b"K", b"g") or size > _LONGEST_HEADER:
        return {}
    file.seek(start)
    content = file.read(size)
    if kind == b"L":
        return {"path": _text(content)}
    found: dict[str, str] = {}
    while content:
        digits, _, _ = content[:20].partition(b" ")
        length = int(digits) if digits.isdigit() and digits.isascii() else 0
        key, equals, value = content[len(digits) + 1 : max(0, length - 1)].partition(b"=")
        if not equals:
            break
        found[_text(key)] = _text(value)
        content = content[length:]
    return {
        key: value for key, value in found.items() if key in ("path", "size") or key.startswith("GNU.sparse")
    }


def _size_of(said: dict[str, str], size: int, at: int) -> int:
    """Of a member's data, which an extended header may give anew."""
    given = said.get("size")
    if given is None:
        return size
    if not given.isdecimal() or len(given) > 20:
        raise TarError(at, f"is damaged at byte {at}: a size is {given[:40]!r}")
    return int(given)


def _skip_sparse_map(file: BinaryIO, at: int) -> int:
    """Return the start of the data of an old sparse member, after the blocks of its map."""
    file.seek(at + 482)
    more, start = file.read(1), at + _BLOCK
    while more.strip(b"\0"):
        file.seek(start + 504)
        more, start = file.read(1), start + _BLOCK
    return start


def _check_rest(file: BinaryIO, at: int, size: int) -> None:
    """Check that only zeros follow the end mark, as padding; else shards were joined, or one is damaged."""
    file.seek(at)
    padding = file.read(64 * 1024)
    if padding.strip(b"\0") or size - at > 1024 * 1024:
        raise TarError(at, f"has an end mark at byte {at} of {size}: what follows is not read")


def _text(field: bytes) -> str:
    return field.split(b"\0")[0].decode("utf-8", "surrogateescape")
