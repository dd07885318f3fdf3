"""Mutated safetensors files, `.pth` files and configuration files give typed errors or load; never anything else."""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sanakit.autoencoder import DCAE
from sanakit.base.errors import InputError
from sanakit.text import build_gemma
from sanakit.transformer import SanaTransformer
from sanakit.weights import (
    ModelSpec,
    load_autoencoder,
    load_text_encoder,
    load_transformer,
    read_model_spec,
    read_pth,
)
from sanakit.weights.formats import sana_pth
from tests.oracles.tiny import Recipe, write_tiny

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 3, 2**31, 10**30, -0.5, 0.3, math.inf, -math.inf, math.nan, "", "x", "ResBlock", [],
    [0], [[]], [1, 2], [5] * 6, [[5]] * 6, {}, {"a": 1}, "\udcff", "rms_norm", [None] * 6,
)  # fmt: skip
CONFIGS = ("transformer/config.json", "vae/config.json", "scheduler/scheduler_config.json", "model_index.json",
           "text_encoder/config.json")  # fmt: skip


def only_typed(action: Callable[[], object]) -> bool:
    """Whether it failed; a failure must be one sentence of the user's kind."""
    try:
        action()
    except InputError as error:
        text = str(error)
        assert text and "\n" not in text and len(text) < 2000
        return True
    return False


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("fuzz"), Recipe(width=8, depth=1, qk_norm=True))


@pytest.fixture(scope="module")
def described(tiny: Path) -> ModelSpec:
    return read_model_spec(tiny)


def mutated_bytes(content: bytes, rng: random.Random) -> bytes:
    """One to four edits: bytes flipped, cut, doubled, inserted; mostly within the header."""
    data = bytearray(content)
    header = 8 + int.from_bytes(content[:8], "little")
    for _ in range(rng.randint(1, 4)):
        limit = min(header, len(data)) if rng.random() < 0.8 else len(data)
        at = rng.randrange(max(limit, 1))
        match rng.randrange(5):
            case 0:
                data[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del data[at : at + rng.randint(1, 40)]
            case 2:
                data[at:at] = data[at : at + rng.randint(1, 40)]
            case 3:
                data[at:at] = rng.choice([b'"', b"{", b"}", b"[", b",", b"9", b"-", b"\\", b"\x00", b"e9"])
            case _:
                del data[at if rng.random() < 0.3 else len(data) - 1 - at // 2 :]
        if not data:
            break
    return bytes(data)


def reheaded(content: bytes, rng: random.Random) -> bytes:
    """The same tensors under a well-formed header with one wrong value."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    name = rng.choice([key for key in header if key != "__metadata__"])
    match rng.randrange(4):
        case 0:
            header[name + "x"] = header.pop(name)
        case 1:
            header[name][rng.choice(["shape", "dtype", "data_offsets"])] = rng.choice(ODD[:-4])
        case 2:
            header[name]["shape"] = list(reversed(header[name]["shape"])) + [1] * rng.randrange(2)
        case _:
            header[name] = rng.choice(ODD[:-4])
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


@pytest.mark.parametrize("part", ["transformer", "vae"])
def test_safetensors(part: str, tiny: Path, described: ModelSpec, tmp_path: Path) -> None:
    rng = random.Random(7)
    folder = tmp_path / part
    shutil.copytree(tiny / part, folder)
    file = folder / "diffusion_pytorch_model.safetensors"
    content = file.read_bytes()
    failures = 0

    def load() -> None:
        with torch.device("meta"):
            if part == "transformer":
                load_transformer(SanaTransformer(described.transformer), described.transformer, folder)
            else:
                load_autoencoder(DCAE(described.autoencoder), described.autoencoder, folder)

    assert not only_typed(load)
    for _ in range(40):
        file.unlink()  # a new file: tensors of the last round may still be mapped
        file.write_bytes((reheaded if rng.random() < 0.4 else mutated_bytes)(content, rng))
        failures += only_typed(load)
    assert failures >= 30  # the rest hit values or padding only


def build_and_load(folder: Path) -> None:
    """What assembling a model does with a folder, up to the weights."""
    found = read_model_spec(folder)
    with torch.device("meta"):
        transformer, autoencoder = SanaTransformer(found.transformer), DCAE(found.autoencoder)
    load_transformer(transformer, found.transformer, found.transformer_source)
    load_autoencoder(autoencoder, found.autoencoder, found.autoencoder_folder)
    load_text_encoder(build_gemma(found.text_config, "meta"), found.text_folder)


def test_configs(tiny: Path, tmp_path: Path) -> None:
    rng = random.Random(11)
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    failures = 0
    for round_ in range(200):
        path = folder / CONFIGS[round_ % len(CONFIGS)]
        content = path.read_bytes()
        if rng.random() < 0.3:
            path.write_bytes(mutated_bytes(content, rng))
        else:
            data = json.loads(content)
            name = rng.choice([*data, "surplus"])
            if rng.random() < 0.15:
                data.pop(name, None)
            else:
                data[name] = rng.choice(ODD)
            path.write_text(json.dumps(data))
        failures += only_typed(lambda: build_and_load(folder))
        path.write_bytes(content)
    assert failures >= 80 and not only_typed(lambda: build_and_load(folder))


def test_index_files(tmp_path: Path) -> None:
    from sanakit.weights import open_weights, save_weights

    rng = random.Random(13)
    save_weights(tmp_path, {f"t{i}": torch.zeros(4) for i in range(4)}, max_shard_size=16)
    index = tmp_path / "diffusion_pytorch_model.safetensors.index.json"
    content = index.read_bytes()
    for _ in range(40):
        index.write_bytes(mutated_bytes(content, rng))
        only_typed(lambda: dict(open_weights(tmp_path)))


def test_pth(tmp_path: Path) -> None:
    from sanakit.transformer import TransformerConfig

    rng = random.Random(17)
    config = TransformerConfig(width=32, depth=1, heads=1, cross_heads=2, text_width=8)
    state = sana_pth.table(config).to_theirs(SanaTransformer(config).state_dict())
    path = tmp_path / "a.pth"
    torch.save({"state_dict": state}, path)
    content = path.read_bytes()

    def load() -> None:
        tensors = read_pth(path)
        shapes = {key: tuple(value.shape) for key, value in tensors.items()}
        found = sana_pth.infer_config(shapes, cross_heads=2)
        with torch.device("meta"):
            load_transformer(SanaTransformer(found), found, path)

    assert not only_typed(load)
    for _ in range(60):
        data = bytearray(content)
        for _ in range(rng.randint(1, 6)):
            data[rng.randrange(4000) if rng.random() < 0.7 else -rng.randrange(1, 3000)] = rng.randrange(256)
        path.unlink()
        path.write_bytes(bytes(data[: rng.randrange(len(data))] if rng.random() < 0.2 else data))
        only_typed(load)
