"""Weight files: shards, variants, damaged files, `.pth` files with and without code."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sanakit.base.errors import OutputError, WeightsError
from sanakit.weights import open_weights, read_pth
from sanakit.weights.load import assign
from sanakit.weights.safetensors import read_header, write_safetensors
from sanakit.weights.save import save_weights
from tests.weights.misaligned import offsets

STEM = "diffusion_pytorch_model"


def tensors() -> dict[str, Tensor]:
    return {f"block.{i}.weight": torch.randn(4, 4) for i in range(5)} | {"scalar": torch.tensor(2.0)}


def equal(folder: Path, expected: dict[str, Tensor], **options: Any) -> bool:
    found = dict(open_weights(folder, **options))
    return found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in found)


DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
          torch.int8, torch.uint8, torch.bool, torch.float8_e4m3fn, torch.float8_e5m2)  # fmt: skip


def test_the_library_reads_our_files(tmp_path: Path) -> None:
    """The same tensors and metadata, no gaps, and elements at multiples of their size, as its own files have them."""
    from safetensors import safe_open
    from safetensors.torch import load, load_file

    mixed = {
        f"{'zyx'[i % 3]}{i}": torch.arange(6).reshape(2, 3).to(dtype) for i, dtype in enumerate(DTYPES * 2)
    }
    mixed |= {"scalar": torch.tensor(1.5), "empty": torch.zeros(0, 3), "täst": torch.zeros(1)}
    mixed |= {"line": torch.arange(64).byte(), "lines": torch.randn(2, 32).half()}
    path = tmp_path / "ours.safetensors"
    write_safetensors(path, mixed)
    for found in (load_file(path), load(path.read_bytes())):
        assert found.keys() == mixed.keys()
        for key, value in mixed.items():
            assert (found[key].dtype, found[key].shape) == (value.dtype, value.shape)
            assert torch.equal(found[key].view(-1).view(torch.uint8), value.view(-1).view(torch.uint8))
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
    entries, begins = read_header(path), offsets(path)
    assert {key: entry.shape for key, entry in entries.items()} == {
        key: tuple(value.shape) for key, value in mixed.items()
    }
    assert all(begins[key] % value.element_size() == 0 for key, value in mixed.items())
    assert (begins["line"], begins["lines"]) == (0, 0)


def test_casting_views_and_unwritable_dtypes(tmp_path: Path) -> None:
    values = {"view": torch.randn(6, 4).t()[1:3], "whole": torch.arange(3)}
    write_safetensors(tmp_path / "model.safetensors", values, torch.bfloat16)
    found = open_weights(tmp_path, "model")
    assert torch.equal(found["view"], values["view"].bfloat16()) and found["whole"].dtype is torch.int64
    assert found.bytes == 12 * 2 + 3 * 8 and found.shapes["view"] == (2, 6)
    with pytest.raises(WeightsError, match="complex64"):
        write_safetensors(tmp_path / "no.safetensors", {"z": torch.zeros(1, dtype=torch.complex64)})
    with pytest.raises(OutputError):
        write_safetensors(tmp_path / "none/no.safetensors", values)


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_shards_are_named_as_diffusers_names_them(tmp_path: Path, variant: str | None) -> None:
    values = tensors()
    save_weights(tmp_path, values, max_shard_size=150, variant=variant)
    tag = ".fp16" if variant else ""
    names = [f"{STEM}{tag}-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    index = f"{STEM}.safetensors.index{tag}.json"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names, index])
    data = json.loads((tmp_path / index).read_text())
    assert data["metadata"] == {"total_size": 5 * 64 + 4} and set(data["weight_map"].values()) == set(names)
    assert equal(tmp_path, values) and equal(tmp_path, values, variant=variant)


def test_a_new_save_removes_the_files_of_the_old_one(tmp_path: Path) -> None:
    save_weights(tmp_path, tensors(), max_shard_size=100)
    save_weights(tmp_path, tensors(), variant="bf16")
    (tmp_path / "notes.safetensors").write_text("mine")
    values = tensors()
    save_weights(tmp_path, values)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"{STEM}.bf16.safetensors",
        f"{STEM}.safetensors",
        "notes.safetensors",
    ]
    assert equal(tmp_path, values)


def test_diffusers_loads_our_shards_and_variants(tmp_path: Path) -> None:
    from diffusers import SanaTransformer2DModel

    from sanakit.transformer import SanaTransformer, TransformerConfig
    from sanakit.weights import load_transformer, save_transformer

    config = TransformerConfig(width=8, depth=2, heads=2, cross_heads=2, text_width=8)
    model = SanaTransformer(config)
    save_transformer(tmp_path, config, model, max_shard_size="4KB", variant="fp16")
    theirs = SanaTransformer2DModel.from_pretrained(tmp_path, variant="fp16")
    assert torch.equal(
        theirs.transformer_blocks[1].attn1.to_k.weight, model.blocks[1].attention.qkv.weight[8:16]
    )
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="5KB", variant="fp16")
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 1
    again = SanaTransformer(config)
    load_transformer(again, config, tmp_path / "theirs", variant="fp16")
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in again.state_dict().items())


@pytest.mark.parametrize("size", ["", "5", "0", "5 parsecs", "-1GB", "1.5GB"])
def test_shard_sizes(tmp_path: Path, size: str) -> None:
    if size == "5":
        save_weights(tmp_path, tensors(), max_shard_size=size)
        assert len(list(tmp_path.glob("*.safetensors"))) == 6
        return
    with pytest.raises(WeightsError, match="like 5GB or 500MB"):
        save_weights(tmp_path, tensors(), max_shard_size=size)


def test_variants_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"holds no diffusion_pytorch_model\*\.safetensors"):
        open_weights(tmp_path)
    with pytest.raises(WeightsError, match="holds no"):
        open_weights(tmp_path / "none")
    save_weights(tmp_path, tensors(), variant="bf16")
    assert len(open_weights(tmp_path)) == 6  # the only one is meant
    with pytest.raises(WeightsError, match=r"has no variant 'fp16': it has 'bf16'"):
        open_weights(tmp_path, variant="fp16")
    save_weights(tmp_path, tensors(), variant="fp16")
    with pytest.raises(WeightsError, match=r"has no plain weights: it has 'bf16', 'fp16'"):
        open_weights(tmp_path)


def edit_index(folder: Path, change: Callable[[dict[str, str]], object]) -> None:
    index = folder / f"{STEM}.safetensors.index.json"
    data = json.loads(index.read_text())
    change(data["weight_map"])
    index.write_text(json.dumps(data))


def test_damaged_shards(tmp_path: Path) -> None:
    save_weights(tmp_path, tensors(), max_shard_size=150)
    first, second = (tmp_path / f"{STEM}-0000{i}-of-00003.safetensors" for i in (1, 2))
    kept = second.read_bytes()
    second.unlink()
    with pytest.raises(WeightsError, match=r"lacks .*00002-of-00003\.safetensors of its 3 shards"):
        open_weights(tmp_path)
    second.write_bytes(first.read_bytes())
    with pytest.raises(WeightsError, match=r"block\.0\.weight lies in both"):
        open_weights(tmp_path)
    second.write_bytes(kept)
    edit_index(tmp_path, lambda names: names.pop("scalar"))
    with pytest.raises(WeightsError, match="disagrees with its shards about scalar"):
        open_weights(tmp_path)
    edit_index(tmp_path, lambda names: names.update(scalar=first.name))
    with pytest.raises(WeightsError, match="disagrees with its shards about scalar"):
        open_weights(tmp_path)
    edit_index(tmp_path, lambda names: names.update(scalar="../secret.safetensors"))
    with pytest.raises(WeightsError, match="isn't a safetensors file beside it"):
        open_weights(tmp_path)
    edit_index(tmp_path, lambda names: names.clear())
    with pytest.raises(WeightsError, match="has no weight_map"):
        open_weights(tmp_path)
    (tmp_path / f"{STEM}.safetensors.index.json").write_text("{")
    with pytest.raises(WeightsError, match="not valid JSON"):
        open_weights(tmp_path)


def raw(header: str, body: bytes = b"") -> bytes:
    return len(header.encode()).to_bytes(8, "little") + header.encode() + body


ONE = '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}%s}'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "truncated"),
        (b"\xff" * 8, "truncated"),
        (raw(ONE % "")[:-3], "truncated"),
        (raw(ONE % ""), "should hold 4 bytes of tensors but has 0"),
        (raw(ONE % "", b"12345"), "should hold 4 bytes of tensors but has 5"),
        (raw(ONE % ',"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}', b"12345678"), "names 'a' twice"),
        (
            raw(ONE % ',"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}', b"123456"),
            "overlap or leave a gap",
        ),
        (
            raw(ONE % ',"b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}', b"1" * 12),
            "overlap or leave a gap",
        ),
        (
            raw('{"a":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}}', b"1234"),
            "damaged safetensors header",
        ),
        (
            raw('{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}', b"1234"),
            "damaged safetensors header",
        ),
        (
            raw('{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}', b"1234"),
            "damaged safetensors header",
        ),
        (raw('{"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}}', b"1234"), "damaged safetensors header"),
        (raw('{"a":3}'), "damaged safetensors header"),
        (raw("[]"), "damaged safetensors header"),
        (raw("[" * 5000), "damaged safetensors header"),
    ],
)
def test_damaged_headers(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / f"{STEM}.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=words) as caught:
        dict(open_weights(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"gone\.safetensors can't be read: No such file"):
        read_header(tmp_path / "gone.safetensors")


def test_assign_reports_what_does_not_fit() -> None:
    module = torch.nn.Linear(2, 3, device="meta")
    good = {"weight": torch.zeros(3, 2), "bias": torch.zeros(3)}
    with pytest.raises(WeightsError, match=r"bias \[3\] int64 instead of \[3\] floating"):
        assign(module, ({**good, "bias": torch.zeros(3, dtype=torch.int64)}).items())
    with pytest.raises(WeightsError, match=r"weight \[2, 3\] float32 instead of \[3, 2\]"):
        assign(module, ({**good, "weight": torch.zeros(2, 3)}).items())
    with pytest.raises(WeightsError, match="lacks bias and has unexpected extra"):
        assign(module, {"weight": good["weight"], "extra": torch.zeros(1)}.items())
    assert module.weight.is_meta
    assign(module, good.items(), dtype=torch.float64)
    assert module.weight.dtype is torch.float64


class Bomb:
    """Runs code when it is unpickled carelessly."""

    fired = False

    def __reduce__(self) -> tuple[Any, ...]:
        return setattr, (Bomb, "fired", True)


@pytest.mark.parametrize("legacy", [False, True])
def test_pth_with_code_is_refused(tmp_path: Path, legacy: bool) -> None:
    path = tmp_path / "bomb.pth"
    torch.save({"state_dict": {"a": Bomb()}}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WeightsError, match="or holds code or objects"):
        read_pth(path)
    path.write_bytes(pickle.dumps({"state_dict": Bomb()}))
    with pytest.raises(WeightsError):
        read_pth(path)
    assert not Bomb.fired


@pytest.mark.parametrize("legacy", [False, True])
def test_pth_of_both_ages(tmp_path: Path, legacy: bool) -> None:
    values = tensors()
    torch.save(
        {"state_dict": values, "epoch": 3}, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy
    )
    found = read_pth(tmp_path / "a.pth")
    assert all(torch.equal(found[key], values[key]) for key in values)
    torch.save(values, tmp_path / "b.pth", _use_new_zipfile_serialization=not legacy)
    assert read_pth(tmp_path / "b.pth").keys() == values.keys()


def test_pth_that_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    for data, words in (
        ({"state_dict_ema": tensors()}, r"has no 'state_dict': it has state_dict_ema"),
        ({"state_dict": [1]}, "dict of tensors, not list"),
        ({"state_dict": {"a": 1}}, "'a' is a int, not a tensor"),
        (torch.zeros(3), "not Tensor"),
    ):
        torch.save(data, path)
        with pytest.raises(WeightsError, match=words):
            read_pth(path)
    torch.save({"state_dict_ema": tensors()}, path)
    assert read_pth(path, "state_dict_ema").keys() == tensors().keys()
    whole = path.read_bytes()
    for content in (b"", b"hello", whole[: len(whole) // 2], whole[:-30]):
        path.write_bytes(content)
        with pytest.raises(WeightsError):
            read_pth(path)
    with pytest.raises(WeightsError, match="can't be read: No such file"):
        read_pth(tmp_path / "none.pth")
