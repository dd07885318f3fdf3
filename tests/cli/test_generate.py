"""`sanakit generate`: where pictures go, what they carry, and how they are drawn again."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from sanakit.pipeline import PictureDone, read_picture
from sanakit.pipeline.components import Components, PartName
from sanakit.pipeline.model import Model
from tests.cli.running import Sana, lines_of, pictures_in


def test_a_named_file(sana: Sana, tmp_path: Path):
    result = sana.draw("a cube", "--out", "new/a.png")
    assert result.exit_code == 0, result.stderr
    assert pictures_in(tmp_path / "new") == ["a.png"]
    first, last = result.stdout.splitlines()
    assert first == "new/a.png  (64x64, seed 0)"
    assert [part.split()[0] for part in last.split(" · ")] == [
        "start",
        "load",
        "text",
        "denoise",
        "decode",
        "total",
    ]
    assert result.stderr == ""


def test_one_picture_never_holds_two_parts_and_several_load_each_once(
    sana: Sana, monkeypatch: pytest.MonkeyPatch
):
    loaded: list[str] = []
    held: list[int] = []
    load = Components.load

    def watched(parts: Components, name: PartName) -> None:
        before = parts.is_loaded(name)
        load(parts, name)
        if not before:
            loaded.append(name)
            held.append(sum(parts.is_loaded(part) for part in ("text", "transformer", "decoder")))

    monkeypatch.setattr(Components, "load", watched)
    assert sana.draw("a cube", "--out", "a.png").exit_code == 0
    assert (loaded, held) == (["text", "transformer", "decoder"], [1, 1, 1])
    loaded.clear()
    assert sana.draw("a cube", "--out", "b", "--count", 3).exit_code == 0
    assert loaded == ["text", "transformer", "decoder"]


def test_a_folder_and_the_default_folder(sana: Sana, tmp_path: Path):
    for options in (("--out", "some.where"), ()):
        assert sana.draw("A Cube!", "--count", 2, "--seed", 5, *options).exit_code == 0
    assert pictures_in(tmp_path / "some.where") == ["a-cube-5.png", "a-cube-6.png"]
    assert pictures_in(tmp_path / "out") == ["a-cube-5.png", "a-cube-6.png"]


def test_files_that_are_named_for_you_never_overwrite(sana: Sana, tmp_path: Path):
    for _ in range(3):
        assert sana.draw("a cube").exit_code == 0
    assert pictures_in(tmp_path / "out") == ["a-cube-0-2.png", "a-cube-0-3.png", "a-cube-0.png"]


def test_a_named_file_is_replaced_by_success_only(
    sana: Sana, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def fail(model: Model, request, stop=None):
        raise RuntimeError("broken\nin two lines")

    with monkeypatch.context() as patch:
        patch.setattr(Model, "generate", fail)
        result = sana.draw("a cube", "--out", path)
        assert (result.exit_code, path.read_bytes()) == (1, b"old")
        assert result.stderr == (
            "sanakit: unexpected RuntimeError: broken in two lines (run again with --debug for the traceback)\n"
        )
        assert isinstance(sana.draw("a cube", "--out", path, "--debug").exception, RuntimeError)
    assert sana.draw("a cube", "--out", path).exit_code == 0
    assert read_picture(path).request.prompt == "a cube"
    assert pictures_in(tmp_path) == ["a.png"]


def test_all_options_reach_the_request(sana: Sana, tmp_path: Path):
    options = (
        "--negative", "fog", "--steps", 3, "--guidance", 2.5, "--seed", 9, "--size", "96x64", "--solver", "dpm3",
        "--no-chi", "--cfg-interval", "0.1,0.9", "--pag", 1.5, "--truncate", "--out", "a.png",
    )  # fmt: skip
    assert sana.draw("a cube", *options).exit_code == 0
    request = read_picture(tmp_path / "a.png").request
    assert (request.negative, request.steps, request.guidance, request.seed) == ("fog", 3, 2.5, 9)
    assert (request.width, request.height, request.solver, request.chi) == (96, 64, "dpm3", False)
    assert (request.cfg_interval, request.pag, request.truncate) == ((0.1, 0.9), 1.5, True)


def test_a_picture_is_recreated_to_the_bit(sana: Sana, tmp_path: Path):
    assert sana.draw("a cube", "--count", 2, "--negative", "fog", "--no-chi").exit_code == 0
    for seed in (0, 1):
        original = tmp_path / "out" / f"a-cube-{seed}.png"
        assert sana("generate", "--like", original, "--out", "again.png").exit_code == 0
        assert (tmp_path / "again.png").read_bytes() == original.read_bytes()


def test_what_is_given_changes_the_picture_to_recreate(sana: Sana, tmp_path: Path):
    sana.draw("a cube", "--negative", "fog", "--no-chi", "--out", "a.png")
    result = sana("generate", "--like", "a.png", "--seed", 4, "--chi", "--out", "b.png")
    assert result.exit_code == 0, result.stderr
    before, after = (read_picture(tmp_path / name) for name in ("a.png", "b.png"))
    assert after.request == before.request.replace(seed=4, chi=True)
    assert sana("generate", "a cone", "--like", "a.png", "--out", "c.png").exit_code == 0
    assert read_picture(tmp_path / "c.png").request == before.request.replace(prompt="a cone")


def test_a_picture_of_other_weights_is_remarked(sana: Sana, tiny, tmp_path: Path):
    from tests.oracles.tiny import Recipe

    sana.draw("a cube", "--out", "a.png")
    result = sana("generate", "--like", "a.png", "--model", tiny(Recipe(seed=5)), "--out", "b.png")
    assert result.exit_code == 0
    assert "note: the picture was drawn with other weights" in result.stderr


def test_grids(sana: Sana, tmp_path: Path):
    assert sana.draw("a cube", "--count", 4, "--grid", "--out", "sheet.png").exit_code == 0
    assert pictures_in(tmp_path) == ["sheet.png"]
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (128, 128)
    assert sana("generate", "--like", "sheet.png", "--out", "again.png").exit_code == 0
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "sheet.png").read_bytes()
    assert sana.draw("a cube", "--count", 2, "--grid").exit_code == 0
    assert pictures_in(tmp_path / "out") == ["a-cube-0-grid.png", "a-cube-0.png", "a-cube-1.png"]


def test_prompts_from_a_file_and_their_grid(sana: Sana, tmp_path: Path):
    (tmp_path / "prompts.txt").write_text("a cube\n\n  a cône  \n", encoding="utf-8")
    assert sana.draw("--prompt-file", "prompts.txt").exit_code == 0
    assert pictures_in(tmp_path / "out") == ["a-cone-0.png", "a-cube-0.png"]
    assert sana.draw("--prompt-file", "prompts.txt", "--grid", "--out", "sheet.png").exit_code == 0
    record = read_picture(tmp_path / "sheet.png")
    assert [request.prompt for request in (record.request, *record.others)] == ["a cube", "a cône"]
    assert sana("generate", "--like", "sheet.png", "--out", "again.png").exit_code == 0
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "sheet.png").read_bytes()
    shown = sana("inspect", "sheet.png").stdout
    assert "and prompt:   a cône" in shown


def test_prompts_from_standard_input(sana: Sana, tmp_path: Path):
    assert sana.draw("--prompt-file", "-", text="a cube\na cone\n").exit_code == 0
    assert pictures_in(tmp_path / "out") == ["a-cone-0.png", "a-cube-0.png"]


def test_the_final_prompt_is_shown(sana: Sana):
    result = sana.draw("A Cube", "--show-prompt")
    assert "User Prompt: a cube\n" in result.stdout
    assert sana.draw("A Cube", "--show-prompt", "--no-chi").stdout.startswith("a cube\n")


def test_json_lines(sana: Sana):
    shown, picture, sheet, done = lines_of(sana.draw("a cube", "--json", "--show-prompt", "--grid"))
    assert shown["event"] == "prompt"
    assert (picture["event"], picture["path"], picture["seed"]) == ("picture", "out/a-cube-0.png", 0)
    assert picture["request"]["prompt"] == "a cube"
    assert (sheet["event"], sheet["path"]) == ("grid", "out/a-cube-0-grid.png")
    assert set(done["seconds"]) == {"start", "load", "text", "denoise", "decode", "total"}


def test_a_long_prompt_is_drawn_and_says_what_was_cut(sana: Sana, tmp_path: Path):
    result = sana.draw("cube " * 400, "--truncate", "--out", "a.png")
    assert result.exit_code == 0
    assert result.stderr.startswith("note: the prompt is too long: its last ")
    assert "tokens were cut, 300 are read.\n" in result.stderr
    assert (tmp_path / "a.png").exists()


@pytest.mark.parametrize("grid", [False, True])
def test_an_interrupt_keeps_finished_pictures(
    sana: Sana, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grid: bool
):
    real = Model.generate

    def interrupted(model: Model, request, stop=None):
        for event in real(model, request, stop):
            yield event
            if isinstance(event, PictureDone) and event.index == 1:
                raise KeyboardInterrupt

    monkeypatch.setattr(Model, "generate", interrupted)
    result = sana.draw("a cube", "--count", 5, *(("--grid",) if grid else ()))
    assert result.exit_code == 130
    assert result.stderr == "sanakit: interrupted, 2 of 5 pictures are finished.\n"
    assert pictures_in(tmp_path / "out") == ["a-cube-0.png", "a-cube-1.png"]
    assert all(read_picture(path) for path in (tmp_path / "out").iterdir())


def test_the_request_of_a_picture_is_printed(sana: Sana):
    sana.draw("a cube", "--negative", "fog", "--out", "a.png")
    shown = sana("inspect", "a.png").stdout
    assert shown.startswith("prompt:       a cube\nsize:         64x64\nnegative:     fog\n")
    (record,) = lines_of(sana("inspect", "a.png", "--json"))
    assert record["request"]["prompt"] == "a cube"
    assert record["made"]["model"] == sana.model
