"""`sanakit train --new`: a config for a folder of pictures that is read, fits the set, and overwrites nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from sanakit.base.errors import DataError
from sanakit.cli import app
from sanakit.data import open_set
from sanakit.data.items import Caption, Item
from sanakit.training.config_warnings import config_warnings
from sanakit.training.lora_starter import LoraChoice, choose_lora
from sanakit.training.schema import read_config
from sanakit.training.session import Session
from sanakit.training.starter import choose, starter


def folder_of(tmp_path: Path, count: int, size: tuple[int, int], caption: str = "a red cube") -> Path:
    folder = tmp_path / "my pictures"
    folder.mkdir()
    for number in range(count):
        Image.new("RGB", size, (number, 90, 10)).save(folder / f"{number:03}.png")
        (folder / f"{number:03}.txt").write_text(f"{caption} number {number}", encoding="utf-8")
    return folder


def test_a_folder_becomes_a_config_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = folder_of(
        tmp_path, 44, (64, 64), caption="ein \u201eroter\u201c W\u00fcrfel:\u2028 #1 'x' \U0001f355\x1b[2J"
    )
    (folder / "000.txt").unlink()
    done = CliRunner().invoke(app, ["train", "--new", str(folder)])
    assert done.exit_code == 0, done.output
    assert "sanakit train 'my pictures.yaml' --plan" in done.output
    config = read_config(tmp_path / "my pictures.yaml")
    assert (config.data.path, config.folder) == (folder, Path("runs/my pictures"))
    assert (config.batch, config.data.held, config.data.square) == (8, 2, True)
    assert len(config.preview.prompts) == 2 and "\U0001f355" in config.preview.prompts[0]
    assert "\x1b" not in (tmp_path / "my pictures.yaml").read_text(encoding="utf-8")
    assert not config_warnings(config)
    assert "43 pictures, 2 held out" in "\n".join(Session(config, device="cpu").plan.lines())
    assert not (tmp_path / "runs").exists()


def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    folder, file = folder_of(tmp_path, 3, (64, 48)), tmp_path / "c.yaml"
    file.write_text("mine")
    done = CliRunner().invoke(app, ["train", str(file), "--new", str(folder)])
    assert (done.exit_code, file.read_text()) == (2, "mine")
    assert "already exists and stays as it is" in done.output
    assert CliRunner().invoke(app, ["train", "--new", str(tmp_path / "nowhere")]).exit_code == 2
    assert CliRunner().invoke(app, ["train"]).exit_code == 2


def items(count: int, width: int, height: int) -> list[Item]:
    caption = (Caption(text="x"),)
    return [Item(key=str(n), width=width, height=height, captions=caption) for n in range(count)]


@pytest.mark.parametrize(
    ("count", "width", "height", "gpu", "told"),
    [
        (1, 256, 256, False, ("toybox", 256, True, 1, 200, 0)),
        (12, 640, 480, False, ("toybox", 256, False, 2, 400, 0)),
        (1852, 72, 72, False, ("toybox", 256, True, 16, 6700, 64)),
        (200_000, 4000, 3000, True, ("sana-0.6b-1024", 1024, False, 16, 20_000, 64)),
        (100, 600, 600, True, ("sana-0.6b-512", 512, True, 16, 400, 5)),
        (100, 100, 100, True, ("sana-0.6b-512", 512, True, 16, 400, 5)),
    ],
)
def test_the_choice_follows_the_set(
    count: int, width: int, height: int, gpu: bool, told: tuple[object, ...]
) -> None:
    found = choose(items(count, width, height), gpu)
    assert (found.base, found.size, found.square, found.batch, found.steps, found.held) == told
    assert found.batch <= found.usable == count - found.held


def test_a_set_without_captions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none of the 3 pictures has a caption"):
        choose([Item(key="a", width=9, height=9, captions=())] * 3, gpu=False)
    for number in range(3):
        Image.new("RGB", (64, 64)).save(tmp_path / f"{number}.png")
    (tmp_path / "1.txt").write_text("one")
    text = starter(open_set(tmp_path), "c.yaml", Path("runs/c"), gpu=False)
    assert "2 more have no caption" in text and json.dumps(str(tmp_path)) in text


@pytest.mark.parametrize(
    ("count", "side", "gpu", "told"),
    [
        (1, 256, False, LoraChoice(base="toybox", size=256, square=True, batch=1, steps=300, rank=16)),
        (8, 640, False, LoraChoice(base="toybox", size=256, square=True, batch=4, steps=400, rank=16)),
        (20, 2000, True, LoraChoice(base="sana-0.6b-1024", size=1024, square=True, batch=4, steps=1000, rank=16)),
        (500, 600, True, LoraChoice(base="sana-0.6b-512", size=512, square=True, batch=4, steps=3000, rank=32)),
    ],
)  # fmt: skip
def test_the_choice_of_a_lora_follows_the_set(count: int, side: int, gpu: bool, told: LoraChoice) -> None:
    assert choose_lora(items(count, side, side), gpu) == told
    with pytest.raises(DataError, match="no pictures"):
        choose_lora([], gpu)


@pytest.mark.parametrize("captioned", [0, 1, 5])
def test_a_folder_becomes_a_config_of_a_lora(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, captioned: int
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = folder_of(tmp_path, 5, (64, 64))
    for number in range(captioned, 5):
        (folder / f"{number:03}.txt").unlink()
    done = CliRunner().invoke(app, ["train", "mine.yaml", "--new", str(folder), "--task", "lora"])
    assert done.exit_code == 0, done.output
    config = read_config(tmp_path / "mine.yaml")
    assert (config.task, config.batch, config.lora.rank, config.lora.prior.weight) == ("lora", 4, 16, 0.0)
    assert (config.lora.prompt is None) == (captioned == 5)
    assert config.preview.prompts[0] == ("a red cube number 0" if captioned else "a picture of sks")
    assert not config_warnings(config)
    text = (tmp_path / "mine.yaml").read_text().replace("# prior:", "prior:")
    (tmp_path / "mine.yaml").write_text(text)
    prior = read_config(tmp_path / "mine.yaml").lora.prior
    assert (prior.weight, prior.target) == (10.0, "base")
    if captioned == 1:  # a plan takes seconds
        assert "a LoRA of rank 16 beside toybox" in "\n".join(Session(config, device="cpu").plan.lines())


def test_a_task_belongs_to_a_new_config(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    done = CliRunner().invoke(app, ["train", "c.yaml", "--task", "lora"])
    assert done.exit_code == 2 and "--task belongs to --new" in done.output
    done = CliRunner().invoke(app, ["train", "--new", str(folder_of(tmp_path, 1, (64, 64))), "--task", "vae"])
    assert done.exit_code == 2 and "configs of the tasks transformer, lora, control" in done.output


@pytest.mark.parametrize("paired", [False, True])
def test_a_folder_becomes_a_config_of_a_control_net(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paired: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = folder_of(tmp_path, 6, (64, 64))
    for picture in list(folder.glob("*.png")) if paired else ():
        picture.with_suffix(".control.png").write_bytes(picture.read_bytes())
    done = CliRunner().invoke(app, ["train", "mine.yaml", "--new", str(folder), "--task", "control"])
    assert done.exit_code == 0, done.output
    config = read_config(tmp_path / "mine.yaml")
    assert (config.task, config.control.copies) == ("control", 5)
    assert config.control.annotator == ("files" if paired else "canny")
    assert not config_warnings(config)
    if paired:  # a plan takes seconds
        assert "5 blocks beside toybox" in "\n".join(Session(config, device="cpu").plan.lines())
