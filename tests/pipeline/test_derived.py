"""Exports take along what a model is made of: as files of their own, by known names, from inside the model alone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sanakit.base import ConfigError, OutputError
from sanakit.transformer import SanaTransformer
from sanakit.weights import About, check_parts, read_model_spec, write_derived
from sanakit.weights.model_files import copy_known, known_files
from sanakit.weights.save import write_settings
from tests.oracles.tiny import Folders


@pytest.fixture
def base(tiny: Folders, tmp_path: Path) -> Path:
    return shutil.copytree(tiny(), tmp_path / "base")


def export(base: Path, target: Path, force: bool = False) -> Path:
    found = read_model_spec(base)
    return write_derived(found, target, SanaTransformer(found.transformer), dtype=torch.bfloat16, force=force)


def copy_all(base: Path, target: Path) -> None:
    """What `convert --dtype int8` does with all parts but the transformer."""
    for name in known_files(base):
        if not name.startswith("transformer/"):
            copy_known(base / name, base, target / name)


WAYS = pytest.mark.parametrize("way", [export, copy_all])
Way = Callable[[Path, Path], object]


def others(folder: Path) -> dict[str, Path]:
    parts = ("vae", "text_encoder", "tokenizer")
    files = [path for part in parts for path in (folder / part).iterdir()]
    return {path.relative_to(folder).as_posix(): path for path in files}


@pytest.mark.parametrize(("way", "kept"), [(export, False), (copy_all, True)])
def test_what_a_model_says_of_itself_is_not_said_of_one_trained_from_it(
    base: Path, tmp_path: Path, way: Way, kept: bool
) -> None:
    about = About(name="Farm", draws="cows")
    write_settings(replace(read_model_spec(base), about=about), base)
    way(base, tmp_path / "model")
    path = tmp_path / "model" / "sanakit.json"
    assert (path.exists() and "Farm" in path.read_text()) == kept


@WAYS
def test_no_file_is_a_second_name_of_the_bases(base: Path, tmp_path: Path, way: Way) -> None:
    target = tmp_path / "model"
    way(base, target)
    theirs, ours = others(base), others(target)
    assert ours.keys() == theirs.keys()
    for name, path in ours.items():
        assert not path.samefile(theirs[name])
        assert path.read_bytes() == theirs[name].read_bytes()
        path.write_bytes(b"changed in place")
        assert theirs[name].read_bytes() != b"changed in place"


@WAYS
def test_what_is_no_part_of_a_model_stays_behind(base: Path, tmp_path: Path, way: Way) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of the machine")
    for name in ("tokenizer/notes.txt", "vae/id_rsa", "text_encoder/pytorch_model.bin", "passwd"):
        (base / name).symlink_to(secret)
    (base / "extra").mkdir()
    (base / "extra" / "config.json").write_text("{}")
    way(base, tmp_path / "model")
    read = [path.read_bytes() for path in (tmp_path / "model").rglob("*") if path.is_file()]
    assert not any(b"of the machine" in content for content in read)
    assert not (tmp_path / "model" / "extra").exists()


@WAYS
@pytest.mark.parametrize(
    "name", ["tokenizer/vocab.txt", "tokenizer/tokenizer.json", "vae/config.json", "tokenizer"]
)
def test_a_known_name_that_leads_out_is_refused(base: Path, tmp_path: Path, way: Way, name: str) -> None:
    path, outside = base / name, tmp_path / "outside"
    if path.exists():
        path.rename(outside)
    else:
        outside.write_text("of the machine")
    path.symlink_to(outside)
    with pytest.raises(ConfigError, match=r"leads out of the model, to .*outside.*: put a copy"):
        way(base, tmp_path / "model")
    with pytest.raises(ConfigError, match="leads out of the model"):
        check_parts(read_model_spec(base))
    assert not (tmp_path / "model" / "model_index.json").exists()


@WAYS
def test_the_hubs_cache_of_links_is_taken(base: Path, tmp_path: Path, way: Way) -> None:
    home = tmp_path / "hub" / "models--some--one"
    snapshot = home / "snapshots" / "0123"
    (home / "blobs").mkdir(parents=True)
    for number, path in enumerate(sorted(path for path in base.rglob("*") if path.is_file())):
        blob, name = home / "blobs" / str(number), snapshot / path.relative_to(base)
        shutil.copy(path, blob)
        name.parent.mkdir(parents=True, exist_ok=True)
        name.symlink_to(os.path.relpath(blob, name.parent))
    check_parts(read_model_spec(snapshot))
    way(snapshot, tmp_path / "model")
    found = others(tmp_path / "model")
    assert found.keys() == others(base).keys()
    assert not any(path.is_symlink() for path in found.values())
    blob = home / "blobs" / "evil"
    blob.symlink_to("/etc/hostname")
    (snapshot / "tokenizer" / "vocab.txt").symlink_to(blob)
    with pytest.raises(ConfigError, match="leads out"):
        way(snapshot, tmp_path / "again")


def test_an_export_replaces_the_one_before_and_keeps_what_the_user_added(base: Path, tmp_path: Path) -> None:
    target = export(base, tmp_path / "model")
    (target / "README.md").write_text("mine")
    (target / "vae" / ".config.json.part").write_text("left by an earlier version")
    with pytest.raises(OutputError, match="exists already"):
        export(base, target)
    (base / "vae" / "config.json").rename(base / "kept")
    with pytest.raises(ConfigError):
        export(base, target, force=True)
    (base / "kept").rename(base / "vae" / "config.json")
    assert read_model_spec(target).autoencoder == read_model_spec(base).autoencoder
    export(base, target, force=True)
    assert (target / "README.md").read_text() == "mine"
    assert replace(
        read_model_spec(target), folder=base, transformer_source=base / "transformer"
    ) == read_model_spec(base)
