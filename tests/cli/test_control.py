"""`sanakit annotate`, `--control`, and every command of docs/control.md, in its order."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sanakit.pipeline.png import read_picture
from sanakit.toybox import render, sample_scene
from sanakit.transformer import SanaTransformer, copy_base
from sanakit.weights import load_transformer, read_model_spec, resolve, save_control
from tests.cli.running import Sana, lines_of, pictures_in
from tests.fuzz.control import make_file, make_folder

ROOT = Path(__file__).parents[2]
COMMANDS = [
    line
    for block in re.findall(
        r"```sh\n(.*?)```", (ROOT / "docs/control.md").read_text(encoding="utf-8"), re.DOTALL
    )
    for line in block.splitlines()
]


def toybox_net(folder: Path) -> None:
    """A ControlNet of two blocks for the model that ships, which changes what it draws."""
    spec = read_model_spec(resolve("toybox"))
    base = SanaTransformer(spec.transformer)
    load_transformer(base, spec.transformer, spec.transformer_source, dtype=torch.float32)
    net = copy_base(base, 2)
    for layer in (net.input, *net.outputs):
        torch.nn.init.normal_(layer.weight, std=0.02)
    save_control(folder, net.control, net)


def picture(path: Path) -> None:
    pixels = (render([sample_scene(3)], 64)[0] * 255).to(torch.uint8)
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(path)


def small(command: str) -> list[str]:
    """The arguments of a command of the page, with less to do."""
    program, *arguments = shlex.split(command, comments=True)
    assert program == "sanakit"
    if arguments[0] == "generate":
        arguments += ["--steps", "1", "--size", "64"]
    return [{"500": "12"}.get(argument, argument) for argument in arguments] + (
        ["--size", "64"] if arguments[:2] == ["data", "toybox"] else []
    )


def test_the_commands_of_the_page_run(sana: Sana, tmp_path: Path) -> None:
    picture(tmp_path / "photo.png")
    for name in ("NET", "OTHER"):
        toybox_net(tmp_path / name)
    Image.new("RGB", (64, 64), "grey").save(tmp_path / "depth.png")
    config = (ROOT / "examples/control.yaml").read_text(encoding="utf-8")
    for old, new in (
        ("steps: 600, size: 256", "steps: 2, size: 64"),
        ("batch: 16", "batch: 4"),
        ("held: 50", "held: 4"),
        ("copies: 5", "copies: 1"),
        ("preview: {every: 100}", ""),
    ):
        assert old in config
        config = config.replace(old, new)
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples/control.yaml").write_text(config, encoding="utf-8")
    assert len(COMMANDS) == 11
    for command in COMMANDS:
        result = sana(*small(command))
        assert result.exit_code == 0, f"{command}: {result.stderr}"
    assert read_picture(tmp_path / "one.png").request.controls[0].end == 0.6
    assert (tmp_path / "out/control/control/config.json").is_file()


def test_like_asks_for_what_steered_and_tells_if_it_is_another(sana: Sana, tmp_path: Path) -> None:
    toybox_net(tmp_path / "net")
    picture(tmp_path / "a.png")
    Image.new("RGB", (64, 64), "grey").save(tmp_path / "b.png")
    fixed = ("--steps", 1, "--size", 64)
    drawn = sana("generate", "a cube", "--control", "net:a.png", *fixed, "--out", "x.png")
    assert drawn.exit_code == 0, drawn.stderr
    alone = sana("generate", "--like", "x.png", "--out", "y.png")
    assert (
        alone.exit_code == 2
        and "'net' (sha256" in alone.stderr
        and "give that file as --control" in alone.stderr
    )
    again = sana("generate", "--like", "x.png", "--control", "net:a.png", "--out", "y.png")
    assert again.exit_code == 0
    assert (np.asarray(Image.open("x.png")) == np.asarray(Image.open("y.png"))).all()
    other = sana("generate", "--like", "x.png", "--control", "net:b.png", "--out", "z.png")
    assert other.exit_code == 0 and "made with 'a.png'" in other.stderr and "'b.png'" in other.stderr


def test_a_folder_is_annotated_beside_its_pictures_and_again_without_theirs(
    sana: Sana, tmp_path: Path
) -> None:
    (tmp_path / "set/deep").mkdir(parents=True)
    picture(tmp_path / "set/a.png")
    picture(tmp_path / "set/deep/b.png")
    (tmp_path / "set/c.png").write_bytes((tmp_path / "set/a.png").read_bytes()[:900])
    for _ in range(2):
        result = sana("annotate", "set", "--kind", "soft", "--set", "sigma=2")
        assert result.exit_code == 0 and "2 control pictures" in result.stdout
        assert "passed over: c.control" in result.stderr
    assert pictures_in(tmp_path / "set") == ["a.control.png", "a.png", "c.png", "deep"]
    result = sana("annotate", "set", "--kind", "grey", "--size", 32, "--out", "grey")
    assert result.exit_code == 0
    with Image.open("grey/deep/b.png") as made:
        assert made.size == (32, 32)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("a.png",), "name an annotator (--kind canny, soft"),
        (("a.png", "--kind", "canny", "--model", "x"), "name an annotator"),
        (("a.png", "--kind", "kanny"), "no annotator 'kanny'"),
        (("a.png", "--kind", "canny", "--set", "low"), "--set takes a name and a number"),
        (("a.png", "--model", "here", "--set", "low=1"), "a --model has no settings"),
        (("a.png", "--model", "nowhere/"), "no model 'nowhere/'"),
        (("nothing.png", "--kind", "canny"), "the picture nothing.png is not there"),
        (("broken.png", "--kind", "canny"), "broken.png: it isn't a picture"),
        (("a.png", "--kind", "canny", "--size", 0), "--size is a number of pixels from 1 to 16384"),
        (("empty", "--kind", "canny"), "there is no picture in empty"),
    ],
)
def test_what_cannot_be_annotated_is_told(sana: Sana, tmp_path: Path, arguments: tuple, told: str) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "empty").mkdir()
    result = sana("annotate", *arguments)
    assert result.exit_code == 2 and told in result.stderr, result.stderr
    assert pictures_in(tmp_path) == ["a.png", "broken.png", "empty"]


def test_a_control_net_is_inspected_as_a_folder_and_as_an_official_file(sana: Sana, tmp_path: Path) -> None:
    make_folder(tmp_path / "net")
    (tmp_path / "file").mkdir()
    make_file(tmp_path / "file")
    told = sana("inspect", "net")
    assert told.exit_code == 0, told.stderr
    assert re.search(r"wiring: +diffusers\ncopied blocks: +1\nsteers: +1\nwidth: +8", told.stdout)
    (facts,) = lines_of(sana("inspect", "file/x.pth", "--json"))
    assert (facts["wiring"], facts["copied_blocks"], facts["steers"]) == ("official", 1, [0])
    refused = sana("inspect", str(resolve("toybox") / "transformer"))
    assert refused.exit_code == 2 and "holds no ControlNet of SANA" in refused.stderr
    done = sana("convert", "file/x.pth", "out", "--cross-heads", 1)
    assert done.exit_code == 0 and "wired as in diffusers" in done.stderr and "copied blocks 1" in done.stdout
