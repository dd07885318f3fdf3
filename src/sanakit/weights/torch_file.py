"""Files of `torch.save`, of both ages: their tensors lie in the mapped file, and nothing in them is run.

Since PyTorch 1.6 a file is a zip of a pickle and one record per storage; before, pickles followed by the storages.
Every storage is compared with the bytes that are there for it, and every tensor with its storage.
"""

from __future__ import annotations

import math
import mmap
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from sanakit.base.errors import WeightsError
from sanakit.base.memory import raise_shortage
from sanakit.base.units import dtype_name
from sanakit.weights.inert_pickle import Call, Persistent, Symbol, read_pickle
from sanakit.weights.rules import listed
from sanakit.weights.zip_records import ZipRecord, checksums, is_zip, read_records

_MAX_PICKLE = 64 * 2**20
_MAX_DIMENSIONS = 32
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_STORAGES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64, "ComplexDoubleStorage": torch.complex128, "UntypedStorage": torch.uint8,
}  # fmt: skip
_DTYPES = {dtype_name(dtype): dtype for dtype in {
    *_STORAGES.values(), torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2,
}}  # fmt: skip
_WRAPPERS = {"_rebuild_parameter", "_rebuild_parameter_with_state"}
_REBUILDERS = {"_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3"}


def map_file(path: Path) -> memoryview:
    """Return the bytes of a file, mapped privately. Raises WeightsError for a file that isn't regular, or is empty."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise WeightsError(f"{path} isn't a regular file: give the path of a checkpoint")
        with path.open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    except OSError as error:
        raise_shortage(error, f"reading {path}")
        raise WeightsError(f"{path} can't be read: {error.strerror or error}") from error
    except ValueError as error:  # an empty file can't be mapped
        raise WeightsError(f"{path} is empty: fetch it again") from error


@dataclass(frozen=True, kw_only=True)
class TorchFile:
    """An opened file. tree: what was saved, tensors as `Call`s. storages: key -> begin and end in the file."""

    path: Path
    data: memoryview = field(repr=False)
    tree: object
    storages: Mapping[str, tuple[int, int]]
    records: dict[str, ZipRecord] = field(default_factory=dict)

    def verify(self) -> bool:
        """Read all of the file and compare it with its checksums; False if it has none. Raises WeightsError."""
        return checksums(self.data, self.records, str(self.path)) if self.records else False

    def mapping(self, value: object = None) -> dict[object, object]:
        """`tree`, or a value of it, as a mapping. Raises WeightsError if it is not one, or is empty."""
        value = self.tree if value is None else value
        if not isinstance(value, dict) or not value:
            raise WeightsError(f"{self.path} should hold a dict of tensors, not {_kind(value)}")
        return value

    def tensors(self, entries: Mapping[object, object]) -> dict[str, Tensor]:
        """Return tensors of a mapping from `tree`. Raises WeightsError for anything but a plain tensor in the file."""
        found: dict[str, Tensor] = {}
        total = 0
        for key, value in entries.items():
            if not isinstance(key, str):
                raise WeightsError(f"{self.path}: a name is a {type(key).__name__}, not a text")
            found[key] = self._tensor(key, value)
            total += found[key].numel() * found[key].element_size()
            if total > len(self.data):
                raise WeightsError(f"{self.path} claims tensors of more bytes than it has: it was not opened")
        return found

    def _tensor(self, key: str, value: object) -> Tensor:
        call = _unwrapped(value)
        if call is None:
            raise WeightsError(f"{self.path}: {listed([key])!r} is a {_kind(value)}, not a tensor")
        function, arguments = call
        if function not in _REBUILDERS:
            kind = function.removeprefix("_rebuild_").split("_")[0]
            raise WeightsError(f"{self.path}: {listed([key])!r} is a {kind} tensor; only plain ones are read")
        try:
            return self._view(arguments, function == "_rebuild_tensor_v3")
        except (TypeError, ValueError, LookupError, RuntimeError, OverflowError) as error:
            reason = f" ({error})" if type(error) is ValueError else ""
            raise WeightsError(
                f"{self.path}: tensor {listed([key])} is damaged{reason}: fetch the file again"
            ) from error

    def _view(self, arguments: tuple[object, ...], named_dtype: bool) -> Tensor:
        """Return a tensor over its storage. Raises ValueError, in words, for numbers that do not fit."""
        stored, geometry = arguments[0], arguments[1:4]
        offset, size, stride = cast(tuple[Any, Any, Any], geometry)
        if not isinstance(stored, Persistent):
            raise TypeError
        kind, storage_key, _, _, *view = _reference(stored)
        dtype = _named_dtype(arguments[6]) if named_dtype else _STORAGES[kind]
        begin, end = self.storages[storage_key]
        if view and view[0] is not None:
            begin, end = _part(view[0], begin, end, dtype)
        count = (end - begin) // dtype.itemsize
        _check_geometry(offset, size, stride, count)
        if not count:
            return torch.empty(size, dtype=dtype)
        flat = torch.frombuffer(self.data, dtype=dtype, count=count, offset=begin)
        return flat.as_strided(size, stride, offset)


def _kind(value: object) -> str:
    name = value.function.name if isinstance(value, Call) else type(value).__name__
    return "Tensor" if name.startswith("_rebuild_tensor") else name


def _unwrapped(value: object) -> tuple[str, tuple[object, ...]] | None:
    """Return function and arguments of the call that rebuilds a tensor, unwrapped; None for anything else."""
    for _ in range(4):
        if not isinstance(value, Call) or not isinstance(value.arguments, tuple):
            return None
        function, arguments = value.function, value.arguments
        if function.module == "torch._tensor" and len(arguments) == 4 and isinstance(arguments[0], Symbol):
            value = Call(arguments[0], arguments[2])
        elif function.name in _WRAPPERS and arguments:
            value = arguments[0]
        elif function.module == "torch._utils":
            return function.name, arguments
        else:
            return None
    return None


def _reference(stored: Persistent) -> tuple[str, str, object, int, object]:
    """Kind, key, device, number of items, and part of a storage. Raises TypeError for any other reference."""
    reference = stored.reference
    if not isinstance(reference, tuple) or len(reference) not in (5, 6) or reference[0] != "storage":
        raise TypeError
    _, kind, key, device, count, *view = reference
    if not isinstance(kind, Symbol) or not isinstance(key, str) or type(count) is not int or count < 0:
        raise TypeError
    return kind.name, key, device, count, view[0] if view else None


def _named_dtype(symbol: object) -> torch.dtype:
    if not isinstance(symbol, Symbol):
        raise TypeError
    return _DTYPES[symbol.name]


def _part(view: object, begin: int, end: int, dtype: torch.dtype) -> tuple[int, int]:
    """Return the part of a storage that another one of an old file is."""
    if not isinstance(view, tuple) or len(view) != 3 or any(type(number) is not int for number in view[1:]):
        raise TypeError
    first = begin + view[1] * dtype.itemsize
    last = first + view[2] * dtype.itemsize
    if not begin <= first <= last <= end:
        raise ValueError("a part lies outside its storage")
    return first, last


def _check_geometry(offset: object, size: object, stride: object, count: int) -> None:
    """Raise ValueError or TypeError unless a tensor lies inside `count` items and has no more than these."""
    if not isinstance(size, tuple) or not isinstance(stride, tuple) or len(size) != len(stride):
        raise TypeError
    if len(size) > _MAX_DIMENSIONS or any(type(number) is not int for number in (offset, *size, *stride)):
        raise TypeError
    assert isinstance(offset, int)
    if offset < 0 or any(number < 0 or number >= 1 << 62 for number in (*size, *stride)):
        raise ValueError("a negative or enormous number in its shape")
    numel = math.prod(size)
    if numel > count:
        raise ValueError(f"a shape of {numel} numbers over {count}")
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if numel and last >= count:
        raise ValueError("it reaches past its storage")


def open_torch_file(path: Path) -> TorchFile:
    """Open a file of `torch.save`: its pickle is read, its tensors are not.

    Raises WeightsError, one sentence, when the file is missing, truncated, damaged, compressed, holds code or objects,
    or has a storage whose record is longer or shorter than it should be.
    """
    data = map_file(path)
    if is_zip(data):
        return _open_zip(path, data)
    if bytes(data[257:262]) == b"ustar":
        raise WeightsError(
            f"{path} is a tar file, from before PyTorch 0.1.10, or not PyTorch's at all: save it again"
        )
    return _open_legacy(path, data)


def read_pth(path: Path, part: str = "state_dict") -> dict[str, Tensor]:
    """Return the tensors of a file of `torch.save`, mapped: of `part` if the file has parts, else of the file.

    Raises WeightsError when the file is missing or damaged, holds code or objects, lacks the part, or the part is no
    mapping of names to tensors.
    """
    file = open_torch_file(path)
    tree = file.mapping()
    if part in tree:
        return file.tensors(file.mapping(tree[part]))
    if any(isinstance(value, dict) for value in tree.values()):
        raise WeightsError(f"{path} has no {part!r}: it has {listed([str(key) for key in tree])}")
    return file.tensors(tree)


def _open_zip(path: Path, data: memoryview) -> TorchFile:
    where = str(path)
    records = read_records(data, where)
    roots = [name.removesuffix("data.pkl") for name in records if name.endswith("/data.pkl")]
    if len(roots) != 1 or "/" in roots[0][:-1]:
        raise WeightsError(f"{path} is a zip file, but not a PyTorch checkpoint: it holds no data.pkl")
    root = roots[0]
    record = records[f"{root}data.pkl"]
    order = records.get(f"{root}byteorder")
    if order is not None and bytes(data[order.begin : order.end][:16]) != b"little":
        raise WeightsError(f"{path} was saved on a big-endian machine: save it again on another")
    if record.end - record.begin > _MAX_PICKLE:
        raise WeightsError(f"{path} isn't a checkpoint: its pickle has more than {_MAX_PICKLE >> 20} MiB")
    checksums(data, {"data.pkl": record}, where)
    tree, persistent, _ = read_pickle(bytes(data[record.begin : record.end]), where)
    storages = {
        name.removeprefix(f"{root}data/"): (found.begin, found.end)
        for name, found in records.items()
        if name.startswith(f"{root}data/")
    }
    _check_storages(persistent, storages, where)
    return TorchFile(path=path, data=data, tree=tree, storages=storages, records=records)


def _open_legacy(path: Path, data: memoryview) -> TorchFile:
    """Magic number, protocol, machine, object, keys of the storages; then each storage behind its number of items."""
    where, position = str(path), 0
    values: list[object] = []
    persistent: list[Persistent] = []
    for _ in range(5):
        value, found, used = read_pickle(bytes(data[position : position + _MAX_PICKLE]), where)
        values, persistent, position = [*values, value], [*persistent, *found], position + used
        if values[0] != _LEGACY_MAGIC:
            raise WeightsError(f"{path} is truncated or not a PyTorch checkpoint: fetch it again")
    storages = _legacy_storages(persistent, values[4], data, position, where)
    return TorchFile(path=path, data=data, tree=values[3], storages=storages)


def _legacy_storages(
    persistent: list[Persistent], keys: object, data: memoryview, position: int, where: str
) -> dict[str, tuple[int, int]]:
    """Key -> begin and end of each storage, which follow each other in the order of `keys`."""
    sizes = dict(_needs(persistent, where))
    storages: dict[str, tuple[int, int]] = {}
    for key in keys if isinstance(keys, list) else ():
        if not isinstance(key, str) or key not in sizes or position + 8 > len(data):
            raise WeightsError(f"{where} is truncated or damaged: fetch it again")
        count, (needed, itemsize) = int.from_bytes(data[position : position + 8], "little"), sizes[key]
        begin = position + 8
        if count * itemsize != needed or begin + needed > len(data):
            raise WeightsError(
                f"{where} is truncated or damaged: storage {key[:40]!r} should have {needed} bytes"
            )
        storages[key], position = (begin, begin + needed), begin + needed
    _check_storages(persistent, storages, where)
    return storages


def _needs(persistent: list[Persistent], where: str) -> list[tuple[str, tuple[int, int]]]:
    """Key -> bytes, and bytes of an item, of every storage that the pickle refers to."""
    try:
        found = [_reference(stored) for stored in persistent]
        return [
            (key, (count * _STORAGES[kind].itemsize, _STORAGES[kind].itemsize))
            for kind, key, _, count, _ in found
        ]
    except (TypeError, KeyError) as error:
        raise WeightsError(f"{where} is damaged, or refers to storages of an unknown kind") from error


def _check_storages(
    persistent: list[Persistent], storages: Mapping[str, tuple[int, int]], where: str
) -> None:
    """Raise WeightsError unless each storage has exactly the bytes that its record has."""
    for key, (needed, _) in _needs(persistent, where):
        if key not in storages:
            raise WeightsError(f"{where} is truncated or damaged: storage {key[:40]!r} is missing")
        begin, end = storages[key]
        if end - begin != needed:
            raise WeightsError(
                f"{where} is damaged: storage {key[:40]!r} should have {needed} bytes and has {end - begin}"
            )
