"""What a model says of itself: written, read back, left out of derived models, and refused where it is damaged."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from sanakit.base.errors import ConfigError
from sanakit.flow.scm import ANGLES, scm_sigmas
from sanakit.flow.solvers import SOLVERS
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


def test_angles_of_a_model_go_before_the_published_ones(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(resolve("toybox-sprint"), folder, ignore=shutil.ignore_patterns("*.safetensors"))
    found = read_model_spec(folder)
    spec = replace(found, schedule=replace(found.schedule, angles=((1.5, 0.7), (1.4,))))
    write_settings(spec, folder)
    assert read_model_spec(folder) == spec
    levels = {steps: SOLVERS["scm"].sigmas(spec.schedule, steps) for steps in (1, 2, 3)}
    assert levels[2] == scm_sigmas([1.5, 0.7, 0.0]) and levels[1] == scm_sigmas([1.4, 0.0])
    assert levels[3] == scm_sigmas([*ANGLES[3], 0.0])
    write_settings(replace(spec, about=None), folder)
    assert read_model_spec(folder).schedule.angles == spec.schedule.angles


@pytest.mark.parametrize(
    "angles", [None, {}, [1.5], [[]], [[1.5, 1.5]], [[1.6]], [[0.0]], [["1.5"]], [[1.5], [1.2]], [[True]]]
)
def test_damaged_angles_are_told(tmp_path: Path, angles: object) -> None:
    folder = tmp_path / "model"
    shutil.copytree(resolve("toybox-sprint"), folder, ignore=shutil.ignore_patterns("*.safetensors"))
    settings = json.loads((folder / "sanakit.json").read_text())
    (folder / "sanakit.json").write_text(json.dumps(settings | {"angles": angles}))
    with pytest.raises(ConfigError, match="sanakit.json: angles must be lists of falling numbers"):
        read_model_spec(folder)
