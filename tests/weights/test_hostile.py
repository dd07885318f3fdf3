"""Damaged and hostile checkpoints: one sentence each, at a cost in proportion to the file, and nothing run."""

from __future__ import annotations

import json
import os
import struct
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sanakit.base.errors import WeightsError
from sanakit.weights import open_checkpoint, read_header, read_pth
from tests.weights import hostile as h

MIB = 2**20


def refused(path: Path, words: str, *, limit: int = 16 * MIB) -> str:
    """The sentence with which a file is refused; what Python takes for it stays below a limit."""
    tracemalloc.start()
    try:
        with pytest.raises(WeightsError, match=words) as caught:
            open_checkpoint(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    text = str(caught.value)
    assert "\n" not in text and len(text) < 500
    assert peak < limit + path.stat().st_size * 8
    return text


def test_what_the_builders_build_is_read(tmp_path: Path) -> None:
    data = struct.pack("<12f", *range(12))
    path = h.one_tensor(tmp_path / "a.pth", h.tensor("0", 12, (3, 2), (1, 3), offset=2), data)
    assert torch.equal(read_pth(path)["a"], torch.arange(12.0).as_strided((3, 2), (1, 3), 2))
    assert torch.equal(read_pth(path)["a"], torch.load(path, weights_only=True)["a"])


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (h.tensor("0", 12, (3, 4), (4, 1), offset=1), "reaches past its storage"),
        (h.tensor("0", 12, (3, 4), (5, 1)), "reaches past its storage"),
        (h.tensor("0", 12, (3, 4), (-4, 1), offset=8), "negative or enormous"),
        (h.tensor("0", 12, (-3, 4), (4, 1)), "negative or enormous"),
        (h.tensor("0", 12, (3, 4), (4, 1), offset=-1), "negative or enormous"),
        (h.tensor("0", 12, (1 << 40, 4), (0, 1)), "a shape of 4398046511104 numbers over 12"),
        (h.tensor("0", 12, (2**70,), (1,)), "negative or enormous"),
        (h.tensor("0", 12, (4, 0, 2**70), (1, 1, 1)), "negative or enormous"),
        (h.tensor("0", 12, (1,) * 40, (1,) * 40), "is damaged"),
        (h.tensor("0", 12, (3, 4), (4,)), "is damaged"),
        (h.tensor("0", 13, (3, 4), (4, 1)), "storage '0' should have 52 bytes and has 48"),
        (h.tensor("0", 11, (11,), (1,)), "storage '0' should have 44 bytes and has 48"),
        (h.tensor("0", 2**62, (3, 4), (4, 1)), "storage '0' should have"),
        (h.tensor("1", 12, (3, 4), (4, 1)), "storage '1' is missing"),
        (h.tensor("../data.pkl", 12, (3, 4), (4, 1)), "is missing"),
        (h.tensor("0", 12, (3, 4), (4, 1), kind=b"QInt8"), "unknown kind"),
        (b"ctorch._utils\n_rebuild_sparse_tensor\n)R", "'a' is a sparse tensor; only plain ones"),
        (b"ctorch._utils\n_rebuild_qtensor\n)R", "'a' is a qtensor tensor; only plain ones"),
        (b"ctorch._utils\n_rebuild_meta_tensor_no_storage\n)R", "'a' is a meta tensor; only plain ones"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n)R", "is damaged"),
        (b"ctorch._utils\n_rebuild_tensor_v2\nK\x01\x85R", "is damaged"),
        (b"K\x01", "'a' is a int, not a tensor"),
        (b"cnumpy._core.multiarray\n_reconstruct\n)R", "'a' is a _reconstruct, not a tensor"),
        (b"cposix\nsystem\nX\x04\x00\x00\x00true\x85R", r"or holds code or objects beside tensors \(posix\.system\)"),
        (b"cbuiltins\neval\n)R", r"\(builtins\.eval\)"),
        (b"cbuiltins\ngetattr\n)R", r"\(builtins\.getattr\)"),
        (b"ctorch.storage\n_load_from_bytes\n)R", r"\(torch\.storage\._load_from_bytes\)"),
        (b"ctorch\nload\n)R", r"\(torch\.load\)"),
        (b"cnumpy\nload\n)R", r"\(numpy\.load\)"),
        (b"(iposix\nsystem\n", r"\(posix\.system\)"),
        (b"Pos\n", "not a PyTorch checkpoint"),
        (b"\x82\x01", "not a PyTorch checkpoint"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_tensor_that_is_none(tmp_path: Path, value: bytes, words: str) -> None:
    refused(h.one_tensor(tmp_path / "a.pth", value), words)


def test_names_that_share_a_storage_claim_no_more_than_the_file_has(tmp_path: Path) -> None:
    entries = {f"n{i}": h.tensor("0", MIB, (MIB,), (1,)) for i in range(200)}
    path = h.write_zip(tmp_path / "a.pth", h.state_dict(entries), {"data/0": bytes(4 * MIB)})
    refused(path, "claims tensors of more bytes than it has")


BOMBS: dict[str, bytes] = {
    "keys that are nested tuples": b"\x80\x02}" + b")" + b"2\x86" * 20_000 + b"K\x01s.",
    "doubled lists": b"\x80\x02](" + b"2e(" * 10_000 + b"e.",
    "one deep list": b"\x80\x02" + b"]" * 40_000 + b"a" * 39_999 + b".",
    "colliding numbers": b"\x80\x02}(" + b"".join(h.number(i * (2**61 - 1)) + b"N" for i in range(4_000)) + b"u.",
    "a long number": b"\x80\x02\x8b" + struct.pack("<i", 40_000) + b"\x01" * 40_000 + b".",
    "a number in digits": b"\x80\x02I" + b"9" * 40_000 + b"\n.",
    "marks": b"\x80\x02" + b"(" * 44_000 + b".",
    "a memo far out": b"\x80\x02Nr\xff\xff\xff\xff" * 3_000 + b".",
    "a string that is longer than the file": b"\x80\x02X\xff\xff\xff\x7f" + b"a" * 1_000,
    "bytes that are longer than memory": b"\x80\x05\x8e" + b"\xff" * 7 + b"\x7f" + b"a" * 1_000,
    "a frame that is longer than the file": b"\x80\x04\x95" + b"\xff" * 7 + b"\x7fN.",
    "no stop": b"\x80\x02}",
    "an empty stack": b"\x80\x02.",
    "two values": b"\x80\x02NN.",
    "operations without end": b"\x80\x02" + b"N0" * 500_001 + b".",
}  # fmt: skip


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", BOMBS)
def test_bombs_cost_no_more_than_their_bytes(tmp_path: Path, name: str, legacy: bool) -> None:
    path = tmp_path / "a.pth"
    if legacy:
        path.write_bytes(BOMBS[name])
    else:
        h.write_zip(path, BOMBS[name], {})
    refused(path, "a.pth", limit=64 * MIB)


def test_a_short_record_gives_no_bytes_of_its_neighbour(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    entries = {"a": h.tensor("0", 12, (12,), (1,)), "b": h.tensor("1", 12, (12,), (1,))}
    h.write_zip(path, h.state_dict(entries), {"data/0": bytes(20), "data/1": bytes(48)})
    refused(path, "storage '0' should have 48 bytes and has 20")


def whole(tmp_path: Path, **options: object) -> Path:
    path = tmp_path / "whole.pth"
    torch.save({"state_dict": {"a": torch.randn(64), "b": torch.randn(8)}}, path, **options)
    return path


def test_checksums_are_compared_when_asked(tmp_path: Path) -> None:
    path = whole(tmp_path)
    data = bytearray(path.read_bytes())
    data[data.index(open_checkpoint(path).tensors["a"].numpy().tobytes()) + 3] ^= 1
    path.write_bytes(bytes(data))
    assert len(open_checkpoint(path).tensors) == 2  # opening does not read the tensors
    with pytest.raises(WeightsError, match=r"record 'whole/data/0' is damaged \(its checksum differs\)"):
        open_checkpoint(path, verify=True)


def test_files_without_checksums_say_so(tmp_path: Path) -> None:
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        path = whole(tmp_path)
    finally:
        torch.serialization.set_crc32_options(before)
    assert open_checkpoint(path, verify=True).notes == (f"{path} has no checksums to compare with.",)
    assert open_checkpoint(whole(tmp_path), verify=True).notes == ()


ENTRIES = [("a/data.pkl", h.state_dict({"a": h.tensor("0", 3, (3,), (1,))})), ("a/data/0", bytes(12))]


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: h.write_zip(path, b"\x80\x02}.", {"data/0": bytes(MIB)}, deflate=True), "compressed records"),
        (lambda path: h.raw_zip(path, [*ENTRIES, ENTRIES[1]]), "holds 'a/data/0' twice"),
        (lambda path: h.raw_zip(path, [*ENTRIES, ("b/data.pkl", b"N.")]), "holds no data.pkl"),
        (lambda path: h.raw_zip(path, [("x/y/data.pkl", b"N.")]), "holds no data.pkl"),
        (lambda path: h.raw_zip(path, ENTRIES, size=1 << 20), "truncated or damaged"),
        (lambda path: h.raw_zip(path, ENTRIES, local=0), "truncated or damaged"),
        (lambda path: h.raw_zip(path, [("n" * 60_000, b"")]), "whose name has 60000 bytes"),
        (lambda path: h.raw_zip(path, [(f"{i}", b"") for i in range(3)]), "holds no data.pkl"),
        (lambda path: path.write_bytes(b"PK\x03\x04" + bytes(100)), "truncated or damaged"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.mkdir(), "a regular file"),
        (lambda path: os.mkfifo(path), "a regular file"),
    ],
)  # fmt: skip
def test_zips_that_are_no_checkpoints(tmp_path: Path, write: Callable[[Path], object], words: str) -> None:
    write(tmp_path / "a.pth")
    refused(tmp_path / "a.pth", words)


@pytest.mark.parametrize("cut", [1, 30, 200, 400, 900])
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_truncated_files(tmp_path: Path, cut: int, legacy: bool) -> None:
    path = whole(tmp_path, _use_new_zipfile_serialization=not legacy)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - min(cut, len(data) - 40)])
    refused(path, "truncated|damaged|not a PyTorch")


def test_places_past_every_file(tmp_path: Path) -> None:
    """Numbers of 8 bytes in a large directory's end, none of which is a place in the file."""
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, 46, 0xFFFFFFFF, 0)
    for place in (2**64 - 1, 2**63, 2**40):
        locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, place, 1)
        (tmp_path / "a.pth").write_bytes(b"PK\x03\x04" + bytes(60) + locator + end)
        refused(tmp_path / "a.pth", "truncated or damaged")


def test_a_legacy_storage_that_lies_about_its_size(tmp_path: Path) -> None:
    path = whole(tmp_path, _use_new_zipfile_serialization=False)
    assert len(open_checkpoint(path).tensors) == 2
    data = path.read_bytes()
    place = data.index(struct.pack("<q", 64) + open_checkpoint(path).tensors["a"].numpy().tobytes())
    for count in (63, 65, 2**40, -1):
        path.write_bytes(data[:place] + struct.pack("<q", count) + data[place + 8 :])
        refused(path, "storage '.*' should have 256 bytes")


def test_tar_files_and_big_endian_ones(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.pth", "w") as file:
        file.add(__file__, "storages")
    refused(tmp_path / "a.pth", "is a tar file")
    h.write_zip(tmp_path / "b.pth", b"\x80\x02}.", {"byteorder": b"big"})
    refused(tmp_path / "b.pth", "big-endian")


def safetensors(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(encoded) if length is None else length) + encoded + data


def entry(dtype: object = "F32", shape: object = (1,), offsets: object = (0, 4)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (safetensors({"a": entry("F4")}, bytes(4)), "tensor 'a' is stored as 'F4'"),
        (safetensors({"a": entry("F8_E8M0")}, bytes(4)), "tensor 'a' is stored as 'F8_E8M0'"),
        (safetensors({"a": entry(["F32"])}, bytes(4)), "is stored as"),
        (safetensors({"a": entry(shape=[2**40, 2**40], offsets=[0, 0])}), "damaged safetensors header"),
        (safetensors({"a": entry(shape=[2**64 // 4 + 1])}, bytes(4)), "damaged safetensors header"),
        (safetensors({"a": entry(shape=[0, 10**30], offsets=[0, 0])}), "damaged safetensors header"),
        (safetensors({"a": entry(shape=[1] * 100)}, bytes(4)), "damaged safetensors header"),
        (safetensors({"a": entry(shape={"0": 1})}, bytes(4)), "damaged safetensors header"),
        (safetensors({"a": entry(offsets=[0, 10**25])}, bytes(4)), "damaged safetensors header"),
        (safetensors(b"{" + b"[" * 100_000), "damaged safetensors header"),
        (safetensors(b'{"a":' + b"9" * 100_000 + b"}"), "damaged safetensors header"),
        (safetensors(b"{}", length=2**63), "truncated or not a safetensors"),
        (safetensors(b"{" + b" " * (32 * MIB) + b"}"), "header has over 32 MiB"),
        (safetensors(b'{"k":1' + b',"k":1' * 50_000 + b"}"), "names 'k' twice"),
        (safetensors(b"{" + b",".join(b'"%d":1' % i for i in range(50_000)) + b',"7":1}'), "names '7' twice"),
        (safetensors({"n" * MIB: 3}), "damaged safetensors header"),
    ],
    ids=range(16),
)  # fmt: skip
def test_safetensors_headers(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    refused(path, words, limit=64 * MIB)
    with pytest.raises(WeightsError, match=words):
        read_header(path)
