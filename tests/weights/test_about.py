"""What a model says of itself: written, read back, left out of derived models, and refused where it is damaged."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from sanakit.base.errors import ConfigError
from sanakit.weights import About, read_model_spec, resolve
from sanakit.weights.about import read_about
from sanakit.weights.save import write_settings

ABOUT = About(name="Farm", draws="animals in a field", knows=("animals: cow, hen", "fields: wide"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder without its weights."""
    target = tmp_path / "model"
    shutil.copytree(resolve("toybox"), target, ignore=shutil.ignore_patterns("*.safetensors"))
    return target


def test_it_is_written_and_read(folder: Path) -> None:
    spec = replace(read_model_spec(folder), about=ABOUT)
    write_settings(spec, folder)
    assert read_model_spec(folder) == spec
    write_settings(replace(spec, about=None), folder)
    assert read_model_spec(folder).about is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("Farm", "about must be an object, not a str"),
        ({"name": "Farm"}, "name, draws and knows of about must be texts"),
        ({"name": "", "draws": "cows"}, "name, draws and knows of about must be texts"),
        ({"name": "Farm", "draws": "c" * 201}, "1 to 200 characters"),
        ({"name": "Farm", "draws": "cows", "knows": ["x", 7]}, "must be texts"),
        ({"name": "Farm", "draws": "cows", "knows": "cows"}, "at most 12 texts"),
        ({"name": "Farm", "draws": "cows", "knows": ["x"] * 13}, "at most 12 texts"),
        ({"name": "Farm", "draw": "cows"}, "unknown field 'draw'; the nearest known one is 'draws'"),
        ([], "about must be an object, not a list"),
    ],
)
def test_damage_is_told(folder: Path, data: object, message: str) -> None:
    settings = json.loads((folder / "sanakit.json").read_text())
    (folder / "sanakit.json").write_text(json.dumps(settings | {"about": data}))
    with pytest.raises(ConfigError, match="sanakit.json: .*" + message.replace("(", r"\(")):
        read_model_spec(folder)


def test_null_says_nothing() -> None:
    assert read_about(None, "x") is None
