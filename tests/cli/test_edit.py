"""`sanakit edit`: the commands of docs/edit.md, bad input, and records that ask for their files."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sanakit.pipeline import loading, read_picture
from tests.cli.running import Sana
from tests.oracles.tiny import Folders, Recipe

PAGE = Path(__file__).parents[2] / "docs" / "edit.md"


@pytest.fixture
def small(sana: Sana, tiny: Folders, monkeypatch: pytest.MonkeyPatch) -> Sana:
    """The command line, whose shipped model is a tiny one."""
    folder = tiny(Recipe(sample_size=2))
    monkeypatch.setattr(loading, "resolve", lambda name, announce: folder)
    return sana


def save(name: str, size: tuple[int, int] = (64, 64), channels: int = 3) -> Path:
    values = np.random.default_rng(1).integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)
    Image.fromarray(values[..., 0] if channels == 1 else values).save(name)
    return Path(name)


def pixels(name: str) -> np.ndarray:
    with Image.open(name) as image:
        return np.asarray(image)


def test_the_page_runs(small: Sana):
    blocks = re.findall(r"```(sh|python)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 8
    names: dict[str, object] = {}
    for kind, text in blocks:
        if kind == "python":
            exec(compile(text, str(PAGE), "exec"), names)
            continue
        for line in text.replace("\\\n", " ").splitlines():
            program, *arguments = shlex.split(line)
            result = small(*arguments)
            assert (program, result.exit_code) == ("sanakit", 0), f"{line}: {result.stderr}"
    kept, before, after = pixels("mask.png") == 0, pixels("cube.png"), pixels("inpainted.png")
    assert (before[kept] == after[kept]).all() and (before != after).any()
    assert Path("same.png").read_bytes() == Path("inpainted.png").read_bytes()
    assert len(list(Path("variations").iterdir())) == 2
    assert pixels("wide.png").shape == (256, 384, 3)


EDIT = ("--prompt", "a cube", "--steps", 2)
BAD = {
    "no picture": ([*EDIT], "give a PICTURE"),
    "a picture that is not there": (["absent.png", *EDIT], "absent.png is not there"),
    "a picture that is none": (["text.png", *EDIT], "isn't a picture of a known form"),
    "a folder": ([".", *EDIT], "is a folder"),
    "no prompt": (["a.png"], "give --prompt"),
    "a mask of another size": (["a.png", *EDIT, "--mask", "wide.png"], "has 96x64 pixels"),
    "an empty mask": (["a.png", *EDIT, "--mask", "black.png"], "is empty"),
    "a mask that is not there": (["a.png", *EDIT, "--mask", "absent.png"], "absent.png is not there"),
    "a strength past 1": (["a.png", *EDIT, "--strength", "2"], "strength must be a number from 0 to 1"),
    "margins that are none": (["a.png", *EDIT, "--outpaint", "1,2"], "left,top,right,bottom"),
    "margins of nothing": (["a.png", *EDIT, "--outpaint", "0,0,0,0"], "margin above 0"),
    "a region without words": (["a.png", *EDIT, "--region", "0,0,1,1"], "left,top,width,height:words"),
    "a region outside": (["a.png", *EDIT, "--region", "32,0,64,64:a"], "outside of the picture of 64x64"),
    "a record without an edit": (["--like", "drawn.png"], "was not an edit"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_ends_in_one_sentence_and_writes_nothing(small: Sana, name: str):
    save("a.png")
    save("wide.png", (96, 64))
    Image.new("L", (64, 64)).save("black.png")
    Path("text.png").write_text("no picture")
    assert name != "a record without an edit" or small.draw("a", "--out", "drawn.png").exit_code == 0
    before = sorted(Path().iterdir())
    arguments, words = BAD[name]
    result = small("edit", *arguments, "--out", "new.png")
    assert result.exit_code == 2, result.stderr
    assert words in result.stderr and result.stderr.count("\n") == 1
    assert sorted(Path().iterdir()) == before


def test_a_model_without_an_encoder_is_refused(sana: Sana, tiny: Folders, tmp_path: Path):
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(tiny(Recipe(sample_size=2)), tmp_path / "m")
    (weights,) = (tmp_path / "m/vae").glob("*.safetensors")
    save_file({k: v for k, v in load_file(weights).items() if k.startswith("decoder")}, weights)
    result = sana("edit", save("a.png"), *EDIT, "--model", "m", "--out", "new.png")
    assert result.exit_code == 2
    assert "encoder" in result.stderr and result.stderr.count("\n") == 1
    assert not Path("new.png").exists()


def test_a_record_asks_for_its_files_and_tells_of_others(small: Sana):
    source, mask = save("a.png", channels=4), save("mask.png", channels=1)
    made = small("edit", source, *EDIT, "--mask", mask, "--strength", 0.5, "--out", "b.png")
    assert made.exit_code == 0, made.stderr
    request = read_picture(Path("b.png")).request
    assert request.source is not None and request.mask is not None
    assert (request.source.name, request.mask.name) == ("a.png", "mask.png")
    for arguments, words in (
        (("--mask", mask), "'a.png'"),
        ((source,), "'mask.png'"),
    ):
        result = small("edit", *arguments, "--like", "b.png", "--out", "c.png")
        assert (result.exit_code, words in result.stderr) == (2, True), result.stderr
    assert "PICTURE of `sanakit edit`" in small("generate", "--like", "b.png", "--out", "c.png").stderr
    again = small("edit", source, "--mask", mask, "--like", "b.png", "--out", "c.png")
    assert (again.exit_code, again.stderr) == (0, "")
    assert Path("c.png").read_bytes() == Path("b.png").read_bytes()
    shown = small("inspect", "b.png")
    assert "a.png" in shown.stdout and request.mask.sha256 in shown.stdout
    other = small("edit", save("d.png", (64, 64)), "--mask", mask, "--like", "b.png", "--out", "c.png")
    assert (other.exit_code, "'d.png'" in other.stderr, "is another file" in other.stderr) == (0, True, True)
