"""The chunks of a PNG besides its pixels: removed before decoding, except orientation and transparency.

Pillow refuses a PNG whose profile or texts are larger than 1 MiB once inflated, and reads chunks after the pixels only
once it has decoded them.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"

TAIL = 64 * 1024
"""Bytes at the end of a file in which an orientation behind the pixels is looked for."""

_KEPT = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_ORIENTATION_KEYS = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0", b"Raw profile type APP1\0")
_MOST_TEXT = 1024 * 1024  # bytes, where Pillow's own limit is
_MOST_EXIF = 64 * 1024


def pixels_only(data: bytes) -> bytes:
    """Return the PNG, or the beginning of one, without what is neither pixels nor orientation."""
    kept = [data[: len(SIGNATURE)]]
    end = len(SIGNATURE)
    whole = True
    for kind, start, end in _chunks(data):
        if kind in _KEPT or _may_hold_orientation(kind, data[start + 8 : end - 4]):
            kept.append(data[start:end])
        else:
            whole = False
    return data if whole else b"".join((*kept, data[end:]))


def orientation_behind(tail: bytes) -> bytes | None:
    """Return the EXIF data of a chunk behind the pixels, as many programs append it. tail: the end of the file."""
    place = tail.rfind(b"eXIf")
    while place >= 4:
        (length,) = struct.unpack_from(">I", tail, place - 4)
        end = place + 4 + length
        if length <= _MOST_EXIF and end + 4 <= len(tail):
            (sum_,) = struct.unpack_from(">I", tail, end)
            if zlib.crc32(tail[place:end]) == sum_:  # else these letters stand inside the pixels
                return tail[place + 4 : end]
        place = tail.rfind(b"eXIf", 0, place)
    return None


def sample_bits(data: bytes) -> int:
    """Bits of a sample, from the header; 8 if that is missing."""
    return data[24] if len(data) > 24 else 8


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start, end) of each chunk that is there whole."""
    start = len(SIGNATURE)
    while start + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, start)
        end = start + 12 + length
        if end > len(data):
            return
        yield data[start + 4 : start + 8], start, end
        start = end


def _may_hold_orientation(kind: bytes, content: bytes) -> bool:
    """Return whether a chunk may say how the picture is turned, and can be inflated without harm."""
    if kind == b"eXIf":
        return len(content) <= _MOST_EXIF
    if kind not in _TEXTS or not content.startswith(_ORIENTATION_KEYS) or len(content) > _MOST_TEXT:
        return False
    packed = kind == b"zTXt" or (kind == b"iTXt" and content[content.index(0) + 1 :][:1] == b"\1")
    return not packed or len(content) * 1100 <= _MOST_TEXT or _inflates(content)


def _inflates(content: bytes) -> bool:
    """Return whether the compressed text that begins within a few bytes of a keyword stays small."""
    keyword = content.index(0)
    for skipped in range(2, 8):
        inflater = zlib.decompressobj()
        try:
            inflater.decompress(content[keyword + skipped :], _MOST_TEXT)
        except zlib.error:
            continue
        return not inflater.unconsumed_tail
    return False
