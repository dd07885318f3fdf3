"""Every weight begins at a multiple of 64 bytes after loading, whatever the file: sums depend on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sanakit.adapt import expect_int8, quantise
from sanakit.autoencoder import DCAE
from sanakit.base.aligned import aligned, is_aligned
from sanakit.text import build_gemma
from sanakit.transformer import SanaTransformer, TransformerConfig
from sanakit.weights import (
    INT8,
    assign,
    folder_to_file,
    int8_layers,
    load_autoencoder,
    load_text_encoder,
    load_transformer,
    read_model_spec,
    save_transformer,
)
from sanakit.weights.formats import sana_pth
from sanakit.weights.safetensors import read_header
from tests.weights.misaligned import misplaced, offsets, shifted_copy, unaligned

OFFSETS = (8, 24, 40)
# Widths of which no weight fills whole lines of 64 bytes, and some that do.
CONFIG = TransformerConfig(
    latent_channels=4, width=24, depth=2, heads=3, cross_heads=2, text_width=8, qk_norm=True
)


def same(found: nn.Module, wanted: nn.Module) -> bool:
    ours, theirs = found.state_dict(), wanted.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_tensor_that_lies_well_is_not_copied() -> None:
    x = torch.randn(4, 16)
    assert is_aligned(x)
    assert aligned(x) is x
    assert aligned(x[1:]).data_ptr() == x[1:].data_ptr()  # 64 bytes further on


@pytest.mark.parametrize(
    "change",
    [
        lambda x: misplaced(x, 4),
        lambda x: misplaced(x, 32),
        lambda x: x.mT.contiguous().mT,
        lambda x: x.contiguous(memory_format=torch.channels_last),
        lambda x: x.flip(0)[..., :1, :1].as_strided((6, 5, 1, 1), (12 * 5, 12, 1, 1)),
        lambda x: x[1:],
        lambda x: nn.Parameter(misplaced(x)),
    ],
)
def test_what_lies_elsewhere_or_in_another_order_is_copied(change: Callable[[Tensor], Tensor]) -> None:
    given = change(torch.randn(6, 5, 4, 3))
    got = aligned(given)
    assert torch.equal(got, given)
    assert got.data_ptr() % 64 == 0
    assert got.stride() == torch.empty(given.shape).stride()
    assert not got.requires_grad


@pytest.mark.parametrize("shape", [(), (0, 3), (3, 0, 2), (1, 1), (5, 1, 1, 1)])
def test_shapes_without_much_in_them(shape: tuple[int, ...]) -> None:
    x = torch.ones(shape)
    assert is_aligned(x)
    assert aligned(misplaced(x) if x.numel() else x).shape == shape


def test_files_lay_whole_lines_aligned(tmp_path: Path) -> None:
    """What fills whole lines can stay mapped; the rest, in real models a few small vectors, stands at the end."""
    model = SanaTransformer(CONFIG)
    paths = save_transformer(tmp_path, CONFIG, model, max_shard_size="20KB", dtype=torch.bfloat16)
    files = [path for path in paths if path.suffix == ".safetensors"]
    assert len(files) > 1
    for path in files:
        begins = offsets(path)
        sizes = {name: entry.end - entry.begin for name, entry in read_header(path).items()}
        assert any(size % 64 == 0 for size in sizes.values())
        assert all(begins[name] == 0 for name, size in sizes.items() if size % 64 == 0)


@pytest.mark.parametrize("offset", OFFSETS)
def test_folders(sana_folder: Path, tmp_path: Path, offset: int) -> None:
    """All three networks of a folder whose files begin elsewhere."""
    found = read_model_spec(sana_folder)
    moved = read_model_spec(shifted_copy(sana_folder, tmp_path / "moved", offset))
    for load in (_transformer, _autoencoder, _text_encoder):
        network = load(moved)
        assert unaligned(network) == []
        assert same(network, load(found))


def _transformer(found) -> nn.Module:
    model = SanaTransformer(found.transformer)
    load_transformer(model, found.transformer, found.transformer_source)
    return model


def _autoencoder(found) -> nn.Module:
    model = DCAE(found.autoencoder)
    load_autoencoder(model, found.autoencoder, found.autoencoder_folder)
    return model


def _text_encoder(found) -> nn.Module:
    model = build_gemma(found.text_config)
    load_text_encoder(model, found.text_folder)
    return model


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_pth(tmp_path: Path, dtype: torch.dtype | None) -> None:
    """Official files: as we write them, and with tensors that are views of one storage, in any order of dimensions."""
    model = SanaTransformer(CONFIG)
    save_transformer(tmp_path / "folder", CONFIG, model)
    folder_to_file(tmp_path / "folder", tmp_path / "ours.pth")
    state = sana_pth.table(CONFIG).to_theirs(model.state_dict())
    views = {name: misplaced(t, 40) for name, t in state.items()}
    views |= {name: t.mT.contiguous().mT for name, t in state.items() if t.dim() == 2}
    torch.save({"state_dict": views}, tmp_path / "views.pth")
    for name in ("ours.pth", "views.pth"):
        again = SanaTransformer(CONFIG)
        load_transformer(again, CONFIG, tmp_path / name, dtype=dtype)
        assert unaligned(again) == []
        assert same(again, model if dtype is None else SanaTransformer(CONFIG).to(dtype)) or dtype is not None


@pytest.mark.parametrize("offset", OFFSETS)
def test_int8(tmp_path: Path, offset: int) -> None:
    model = SanaTransformer(CONFIG).requires_grad_(False)
    quantise(model, smallest=1)
    save_transformer(tmp_path / "int8", CONFIG, model.state_dict(), layout=INT8)
    folder = shifted_copy(tmp_path / "int8", tmp_path / "moved", offset)
    again = SanaTransformer(CONFIG).requires_grad_(False)
    expect_int8(again, int8_layers(folder))
    load_transformer(again, CONFIG, folder)
    assert unaligned(again) == []
    assert same(again, model)


def test_tensors_that_a_caller_hands_in() -> None:
    source, target = (
        nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7)),
        nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7)),
    )
    pairs = {name: misplaced(t, 8) for name, t in source.state_dict().items() if t.is_floating_point()}
    pairs["1.num_batches_tracked"] = source.state_dict()["1.num_batches_tracked"]
    assign(target, pairs.items(), as_stored=frozenset({"1.num_batches_tracked"}))
    assert unaligned(target) == []
    assert same(target, source)
