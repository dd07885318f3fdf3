"""The mark of an encoder depends on what it reads with, and on nothing else that lies in its folders."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sanakit.data.cache import latent_fingerprint, text_fingerprint
from sanakit.pipeline.components import fingerprint
from sanakit.transformer import SanaTransformer
from sanakit.weights import ModelSpec, load_transformer, read_model_spec, resolve, write_derived

STRAYS = (
    "tokenizer/.tokenizer.json.part",
    "tokenizer/.tokenizer_config.1a2b3c4d.part.json",
    "tokenizer/README.md",
    "tokenizer/.DS_Store",
    "text_encoder/.model.safetensors.part",
    "text_encoder/.model.1a2b3c4d.part.safetensors",
    "vae/.diffusion_pytorch_model.1a2b3c4d.part.safetensors",
    "transformer/.diffusion_pytorch_model.1a2b3c4d.part.safetensors",
    "words.txt",
)


@pytest.fixture
def model(tmp_path: Path) -> ModelSpec:
    folder = tmp_path / "model"
    shutil.copytree(resolve("toybox"), folder)
    return read_model_spec(folder)


def marks(model: ModelSpec) -> tuple[str, str, str]:
    return text_fingerprint(model), latent_fingerprint(model), fingerprint(model)


@pytest.mark.parametrize("stray", STRAYS)
def test_what_is_no_part_of_a_model_changes_no_mark(model: ModelSpec, stray: str) -> None:
    before = marks(model)
    (model.folder / stray).write_bytes(b"half of something")
    assert marks(model) == before


def test_a_second_export_leaves_nothing_behind_and_the_same_marks(model: ModelSpec, tmp_path: Path) -> None:
    with torch.device("meta"):
        network = SanaTransformer(model.transformer)
    load_transformer(network, model.transformer, model.transformer_source)
    seen = []
    for _ in range(2):
        write_derived(model, tmp_path / "out", network, words={"pizza"}, force=True)
        names = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*"))
        seen.append((names, marks(read_model_spec(tmp_path / "out"))))
    assert seen[0] == seen[1] and not any(".part" in name for name in seen[0][0])
    assert seen[0][1][:2] == marks(model)[:2]
    assert (tmp_path / "out/words.txt").read_text() == "pizza\n"


def test_a_copy_has_the_marks_of_the_shipped_model(model: ModelSpec) -> None:
    assert marks(model) == marks(read_model_spec(resolve("toybox")))


def test_what_is_read_with_changes_the_mark(model: ModelSpec) -> None:
    before = text_fingerprint(model)
    path = model.tokenizer_folder / "tokenizer.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps(told | {"truncation": None, "version": "1.1"}))
    assert text_fingerprint(model) != before
    assert text_fingerprint(replace(model, instruct=True)) != before
