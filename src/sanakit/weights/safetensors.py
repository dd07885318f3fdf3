"""One safetensors file: a header reader that trusts nothing, and a writer that streams.

Layout: 8 bytes little-endian length of the header, the header (JSON, padded by spaces), then raw tensors without gaps.
Mapped tensors are read by the library; the writer is ours because the library's holds a second copy and
places tensors so that a mapped one begins at any multiple of 8 bytes (see `base.aligned` for the consequences).
"""

from __future__ import annotations

import json
import math
import stat
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from sanakit.base.aligned import ALIGNMENT
from sanakit.base.errors import WeightsError
from sanakit.base.files import atomic_write
from sanakit.base.json_text import parse_json

# The library allows 100 MB, whose parsing takes gigabytes; a full shard of a cache has 10, a model a third of one.
_MAX_HEADER = 32 * 2**20
_MAX_DIMENSIONS = 32
_ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
               "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "U32": 4, "U64": 8, "C64": 8}  # fmt: skip
# In the order in which the library lays tensors out.
_NAMES = {
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_RANK = {dtype: rank for rank, dtype in enumerate(_NAMES)}


@dataclass(frozen=True)
class Entry:
    """One tensor as the header describes it; `begin` and `end` count from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_header(path: Path) -> dict[str, Entry]:
    """Names and descriptions of the tensors in a file, none of which is read.

    Raises WeightsError when the file is missing, truncated, padded, or its header is malformed, names a tensor
    twice, or describes tensors that do not fill the file exactly.
    """
    text, size = _header_text(path)
    entries = _entries(text, path)
    _check_layout(entries, size, path)
    return entries


def read_metadata(path: Path) -> dict[str, str]:
    """Return the texts that a file says of itself, without `format`. Raises WeightsError as `read_header`."""
    found = _parse(_header_text(path)[0], path).get("__metadata__") or {}
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise WeightsError(f"{path} has a damaged safetensors header: its metadata are not texts")
    return {name: value for name, value in found.items() if name != "format"}


def _header_text(path: Path) -> tuple[bytes, int]:
    """Return the header of a file, and the bytes of its tensors."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise WeightsError(f"{path} isn't a regular file: give the path of a safetensors file")
        size = status.st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > size - 8:
                raise WeightsError(
                    f"{path} is truncated or not a safetensors file: fetch or convert it again"
                )
            if length > _MAX_HEADER:
                raise WeightsError(
                    f"{path} isn't a file of SANA: its safetensors header has over {_MAX_HEADER >> 20} MiB"
                )
            text = file.read(length)
    except OSError as error:
        raise WeightsError(f"{path} can't be read: {error.strerror or error}") from error
    return text, size - 8 - length


def _entries(text: bytes, path: Path) -> dict[str, Entry]:
    header = _parse(text, path)
    header.pop("__metadata__", None)
    try:
        return {name: _entry(name, fields, path) for name, fields in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{path} has a damaged safetensors header: fetch or convert it again") from error


def _parse(text: bytes, path: Path) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
            raise WeightsError(f"{path} names {twice[:80]!r} twice in its header: the file is damaged")
        return found

    try:
        header = parse_json(text.decode("utf-8"), object_pairs_hook=unique)
        if not isinstance(header, dict):
            raise ValueError("not an object")
        return header
    except ValueError as error:
        raise WeightsError(f"{path} has a damaged safetensors header: fetch or convert it again") from error


def _entry(name: str, fields: dict[str, Any], path: Path) -> Entry:
    """Raise KeyError, TypeError or ValueError for anything but a well-formed description."""
    (begin, end), shape, dtype = fields["data_offsets"], fields["shape"], fields["dtype"]
    if not isinstance(shape, list) or len(shape) > _MAX_DIMENSIONS:
        raise ValueError("not a shape")
    if any(type(number) is not int or not 0 <= number < 1 << 63 for number in (begin, end, *shape)):
        raise ValueError("not a natural number")
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        raise WeightsError(
            f"{path} has a damaged safetensors header, or a newer one than is read here: "
            f"tensor {name[:80]!r} is stored as {str(dtype)[:20]!r}"
        )
    if math.prod(shape) * _ITEM_BYTES[dtype] != end - begin:
        raise ValueError("shape and offsets disagree")
    return Entry(dtype, tuple(shape), begin, end)


def _check_layout(entries: Mapping[str, Entry], size: int, path: Path) -> None:
    """Tensors must follow each other without gap or overlap up to the end of the file."""
    position = 0
    for entry in sorted(entries.values(), key=lambda entry: (entry.begin, entry.end)):
        if entry.begin != position:
            raise WeightsError(f"{path} has a damaged safetensors header: tensors overlap or leave a gap")
        position = entry.end
    if position != size:
        raise WeightsError(f"{path} should hold {position} bytes of tensors but has {size}: fetch it again")


def byte_size(tensor: Tensor, dtype: torch.dtype | None = None) -> int:
    """Bytes of a tensor in a file, when floating tensors are written as `dtype`."""
    return tensor.numel() * _file_dtype(tensor, dtype).itemsize


def write_safetensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    dtype: torch.dtype | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a file atomically, casting floating tensors to `dtype` (None: as they are) one at a time.

    metadata: texts that the file says of itself.
    Data begin at a multiple of 64 bytes, and tensors whose size is a multiple of 64 come first, so that all of these
    can be used where they are mapped; the others follow, by dtype and by name as in the library's own files. Raises
    OutputError when the path can't be written, WeightsError for a dtype without a name.
    """

    def place(name: str) -> tuple[bool, int, str]:
        odd = byte_size(tensors[name], dtype) % ALIGNMENT != 0
        return odd, _RANK[_file_dtype(tensors[name], dtype)], name

    order = sorted(tensors, key=place)
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    position = 0
    for name in order:
        tensor, end = tensors[name], position + byte_size(tensors[name], dtype)
        kind = _NAMES[_file_dtype(tensor, dtype)]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)

    def write(draft: Path) -> None:
        with draft.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for name in order:
                _write_tensor(file, tensors[name].to(_file_dtype(tensors[name], dtype)))

    atomic_write(path, write)


def _write_tensor(file: BinaryIO, tensor: Tensor) -> None:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    if flat.numel():
        file.write(flat.view(torch.uint8).numpy().data)


def _file_dtype(tensor: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    chosen = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
    if chosen not in _NAMES:
        raise WeightsError(
            f"tensors of {chosen} can't be written as safetensors: choose float32, bfloat16 or float16"
        )
    return chosen
