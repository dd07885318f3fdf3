"""Model folders in int8: the numbers of rounding at loading, half the bytes, and no half-written or misread folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sanakit.adapt import Int8Linear
from sanakit.adapt.runner import unwrapped
from sanakit.base import OutputError, RequestError, WeightsError
from sanakit.pipeline import ImageRequest, Note, write_int8_folder
from sanakit.weights import read_model_spec, resolve
from tests.oracles import chips
from tests.oracles.tiny import Folders
from tests.pipeline.drawing import open_model, ours

REQUEST = ImageRequest(prompt="a red cube", width=128, height=128, steps=2, seed=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("int8") / "model"
    report = write_int8_folder(read_model_spec(resolve("toybox")), target)
    assert "blocks.0.ffn.expand" in report.replaced
    assert {"head.out", "modulation"} <= set(report.kept)
    return target


def test_the_folder_is_whole_and_smaller(folder: Path) -> None:
    source = resolve("toybox")
    names = {
        p.relative_to(source) for p in source.rglob("*") if p.is_file() and p.parent.name != "transformer"
    }
    assert names <= {p.relative_to(folder) for p in folder.rglob("*")}
    assert [p.name for p in (folder / "transformer").glob("*.safetensors")] == ["int8.safetensors"]
    full = (source / "transformer/diffusion_pytorch_model.safetensors").stat().st_size
    assert (folder / "transformer/int8.safetensors").stat().st_size < 0.7 * full


def test_it_draws_what_rounding_at_loading_draws(folder: Path) -> None:
    stored, rounded = open_model(folder), open_model("toybox", fast="int8")
    assert torch.equal(ours(stored, REQUEST)[0], ours(rounded, REQUEST)[0])
    assert isinstance(stored.parts.transformer.blocks[0].attention.qkv, Int8Linear)


def test_a_folder_in_int8_says_what_it_saves_where_there_are_no_units(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with chips.on(monkeypatch, chips.AVX2):
        notes = [e.message for e in open_model(folder, fast="off").generate(REQUEST) if isinstance(e, Note)]
    assert [note for note in notes if "no time here, its layers are multiplied as float32" in note]


def test_plain_torch_draws_it_too_in_any_dtype(folder: Path) -> None:
    model = open_model(folder, fast="off")
    layer = unwrapped(model.parts.transformer).blocks[0].attention.qkv
    assert (layer.weight.dtype, layer.scales.dtype) == (torch.int8, torch.float32)
    assert model.images(REQUEST)


def test_what_cannot_be_written_is_refused(folder: Path, tiny: Folders, tmp_path: Path) -> None:
    found = read_model_spec(folder)
    with pytest.raises(RequestError, match="is in int8 already"):
        write_int8_folder(found, tmp_path / "again")
    toybox = read_model_spec(resolve("toybox"))
    with pytest.raises(OutputError, match="exists already"):
        write_int8_folder(toybox, folder)
    with pytest.raises(RequestError, match="is the model itself"):
        write_int8_folder(toybox, toybox.folder, force=True)
    with pytest.raises(RequestError, match="no layer that is wide enough"):
        write_int8_folder(read_model_spec(tiny()), tmp_path / "tiny")
    assert not (tmp_path / "tiny").exists()


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("blocks.0.ffn.expand.weight", lambda t: t.float(), r"float32 instead of .* int8"),
        ("blocks.0.ffn.expand.steps", lambda t: t.half(), r"float16 instead of .* float32"),
        ("blocks.0.ffn.expand.steps", None, "blocks.0.ffn.expand"),
        ("blocks.0.cross.kv.weight", lambda t: t.to(torch.int8), r"int8 instead of .* floating"),
    ],
)
def test_damaged_folders_are_told(folder: Path, tmp_path: Path, name: str, change, told: str) -> None:
    broken = tmp_path / "model"
    broken.mkdir()
    for part in folder.iterdir():
        (broken / part.name).symlink_to(part)
    (broken / "transformer").unlink()
    (broken / "transformer").mkdir()
    (broken / "transformer/config.json").write_bytes((folder / "transformer/config.json").read_bytes())
    tensors = load_file(folder / "transformer/int8.safetensors")
    tensors = {key: tensor for key, tensor in tensors.items() if key != name or change is not None}
    if change is not None:
        tensors[name] = change(tensors[name])
    save_file(tensors, broken / "transformer/int8.safetensors")
    with pytest.raises(WeightsError, match=told):
        open_model(broken).parts.load("transformer")


def test_a_rounded_name_that_is_no_layer_is_told(folder: Path, tmp_path: Path) -> None:
    from sanakit.adapt import expect_int8

    with pytest.raises(WeightsError, match="'blocks.9.nothing' in int8, which isn't a linear layer"):
        expect_int8(torch.nn.Sequential(), ["blocks.9.nothing"])
