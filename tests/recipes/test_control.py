"""The recipe of Toybox's ControlNets: its configs, its depth files, and scores of pictures that keep to the control."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from recipes.control_measures import DepthReader, above_floor, cases, score, train_reader
from recipes.toybox_control import KINDS, config, write_depths
from sanakit.toybox import sample_scene
from sanakit.toybox.folder import write_pictures
from sanakit.training.config_warnings import config_warnings


def test_each_kind_is_a_config_without_warnings(tmp_path: Path) -> None:
    for kind in KINDS:
        made = config(kind, root=tmp_path)
        assert (made.task, made.folder) == ("control", tmp_path / kind) and not config_warnings(made)
    assert config("depth", root=tmp_path).control.pictures == tmp_path / "depth"


def test_depth_files_have_the_names_of_the_pictures_and_stay(tmp_path: Path) -> None:
    assert list(write_depths(tmp_path, 2)) == [1, 2]
    before = (tmp_path / "000001.png").stat().st_mtime_ns
    assert list(write_depths(tmp_path, 2)) == [1, 2]
    assert (tmp_path / "000001.png").stat().st_mtime_ns == before
    with Image.open(tmp_path / "000000.png") as levels:
        assert levels.size == (256, 256) and levels.mode == "L"


def test_only_objects_rise_above_the_floor() -> None:
    raised = above_floor(sample_scene(3))
    assert raised.min() >= 0 and 0 < float((raised > 0.01).float().mean()) < 0.3


def test_a_render_keeps_to_its_own_control_and_its_mirror_image_does_not() -> None:
    found = cases(1)
    reader = DepthReader()
    own = score([found[0].picture], found, reader)
    turned = score([ImageOps.mirror(found[0].picture)], found, None)
    assert own["edges"] == 1.0 and turned["edges"] < 0.6
    assert own["prompt"] == 1.0 and -1 <= own["depth"] <= 1 and "depth" not in turned
    assert np.asarray(found[0].controls["canny"]).any() and torch.is_tensor(reader(torch.zeros(1, 3, 64, 64)))


def test_the_reader_of_depth_learns_where_things_stand(tmp_path: Path) -> None:
    list(write_pictures(tmp_path, 32, size=64))
    reader = train_reader(tmp_path, 32, steps=60, batch=8)
    found = cases(2)
    own = score([case.picture for case in found], found, reader)
    other = score([case.picture for case in reversed(found)], found, reader)
    assert own["depth"] > 0.3 and own["depth"] > other["depth"] + 0.2
