"""Options of `generate` that choose weights, fields, blocks and sizes: heard, recorded, and heard again by `--like`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from sanakit.pipeline import read_picture
from tests.cli.running import Sana, lines_of, pictures_in
from tests.oracles.tiny import Folders, Recipe

WEIGHTS = "diffusion_pytorch_model"
DRAW = ("--size", "64x64", "--steps", 2, "--device", "cpu", "--dtype", "fp32")


@pytest.fixture
def model(tiny: Folders, tmp_path: Path) -> Path:
    """A folder whose transformer has a second variant, of other numbers."""
    folder = tmp_path / "model"
    shutil.copytree(tiny(), folder)
    other = tiny(Recipe(seed=5)) / "transformer" / f"{WEIGHTS}.safetensors"
    shutil.copy(other, folder / "transformer" / f"{WEIGHTS}.fp16.safetensors")
    return folder


def pixels(path: Path) -> bytes:
    with Image.open(path) as image:
        return image.tobytes()


def test_an_empty_prompt_draws(sana: Sana, tmp_path: Path):
    for prompt, name in (("", "a.png"), ("  \n", "b.png")):
        result = sana.draw(prompt, "--out", name)
        assert result.exit_code == 0, result.stderr
    assert pixels(tmp_path / "a.png") == pixels(tmp_path / "b.png")
    assert sana("generate", "--like", "a.png", "--out", "c.png").exit_code == 0
    assert (tmp_path / "c.png").read_bytes() == (tmp_path / "a.png").read_bytes()
    assert sana.draw("").exit_code == 0
    assert pictures_in(tmp_path / "out") == ["picture-0.png"]


def test_a_variant_is_drawn_told_and_recreated(sana: Sana, model: Path, tmp_path: Path):
    assert sana("generate", "a cube", "--model", model, *DRAW, "--out", "plain.png").exit_code == 0
    result = sana("generate", "a cube", "--model", model, "--variant", "fp16", *DRAW, "--out", "a.png")
    assert result.exit_code == 0, result.stderr
    assert result.stderr.count("has no variant 'fp16': its plain weights are read") == 2  # vae, text_encoder
    assert pixels(tmp_path / "a.png") != pixels(tmp_path / "plain.png")
    made, plain = read_picture(tmp_path / "a.png").made, read_picture(tmp_path / "plain.png").made
    assert made["variant"] == "fp16" and "variant" not in plain and made["weights"] != plain["weights"]
    assert sana("generate", "--like", "a.png", "--out", "b.png").exit_code == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    (model / "transformer" / f"{WEIGHTS}.fp16.safetensors").unlink()
    assert sana("generate", "--like", "a.png", "--out", "c.png").exit_code == 2


def test_fields_are_ignored_told_and_recreated(sana: Sana, model: Path, tmp_path: Path):
    path = model / "transformer/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"brand_new": 3, "\x1b]0;x\x07": None}))
    draw = ("generate", "a cube", "--model", model, *DRAW, "--out", "a.png")
    refused = sana(*draw)
    assert refused.exit_code == 2
    assert "--ignore-config-fields brand_new" in refused.stderr
    result = sana(*draw, "--ignore-config-fields", "brand_new")
    assert result.exit_code == 0, result.stderr
    assert "brand_new was ignored as asked" in result.stderr
    assert r"\x1b]0;x\x07 was passed over" in result.stderr
    assert "\x1b" not in result.stderr
    assert read_picture(tmp_path / "a.png").made["ignore_config_fields"] == "brand_new"
    assert sana("generate", "--like", "a.png", "--out", "b.png").exit_code == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert sana("doctor", "--model", model).exit_code == 2
    told = sana("doctor", "--model", model, "--ignore-config-fields", "brand_new", "--json")
    assert told.exit_code == 0
    assert "brand_new was ignored as asked" in told.stderr
    assert json.loads(told.stdout)["memory"]["together"] in (True, False)


def test_python_ignores_fields_and_takes_variants(model: Path):
    import sanakit

    path = model / "vae/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"brand_new": 3}))
    with pytest.raises(sanakit.ConfigError, match="brand_new"):
        sanakit.load(model, "cpu", "fp32")
    found = sanakit.load(model, "cpu", "fp32", ignore_config_fields=["brand_new"], variant="fp16")
    assert found.provenance["ignore_config_fields"] == "brand_new"
    assert found.provenance["variant"] == "fp16"
    with pytest.raises(sanakit.WeightsError, match="no variant 'bf16'"):
        sanakit.load(model, "cpu", "fp32", ignore_config_fields="brand_new", variant="bf16")


def test_pag_blocks(sana: Sana, tmp_path: Path):
    pictures = {}
    for blocks in ("0", "1", "0,1"):
        name = f"{blocks.replace(',', '-')}.png"
        result = sana.draw("a cube", "--pag", "3", "--pag-blocks", blocks, "--out", name)
        assert result.exit_code == 0, result.stderr
        pictures[blocks] = pixels(tmp_path / name)
    assert len(set(pictures.values())) == 3
    assert read_picture(tmp_path / "0-1.png").request.pag_blocks == (0, 1)
    assert "no effect without a pag scale" in sana.draw("a cube", "--pag-blocks", "0").stderr


@pytest.mark.parametrize("depth", [2, 3])
def test_a_folder_for_perturbed_attention_perturbs_the_block_of_diffusers(
    sana: Sana, tiny: Folders, tmp_path: Path, depth: int
):
    folder = tiny(Recipe(pag=True, depth=depth))
    for name, options in (("a.png", ()), ("b.png", ("--pag-blocks", "0")), ("c.png", ("--pag-blocks", "1"))):
        assert (
            sana("generate", "a", "--model", folder, "--pag", 2, *options, *DRAW, "--out", name).exit_code
            == 0
        )
    assert pixels(tmp_path / "a.png") == pixels(tmp_path / "b.png") != pixels(tmp_path / "c.png")


def test_without_bins_the_very_size_is_drawn(sana: Sana, tiny: Folders, tmp_path: Path):
    folder = tiny(Recipe(sample_size=16), bins=True)
    for option in ("--bins", "--no-bins"):
        result = sana("generate", "a", "--model", folder, *DRAW, option, "--out", f"{option}.png")
        assert result.exit_code == 0, result.stderr
    assert pixels(tmp_path / "--bins.png") != pixels(tmp_path / "--no-bins.png")
    assert read_picture(tmp_path / "--no-bins.png").request.bins is False
    assert sana("generate", "--like", "./--no-bins.png", "--out", "again.png").exit_code == 0
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "--no-bins.png").read_bytes()


@pytest.mark.parametrize(
    ("sprint", "solver", "words"),
    [(False, "scm", "scm is the sampler of Sprint"), (True, "dpm2", "dpm2 isn't a sampler for Sprint"),
     (True, "euler", "euler isn't a sampler for Sprint"), (True, "scm", None), (False, "dpm3", None)],
)  # fmt: skip
def test_a_solver_of_the_other_kind_is_remarked(
    sana: Sana, tiny: Folders, sprint: bool, solver: str, words: str | None
):
    folder = tiny(Recipe(sprint=sprint))
    result = sana("generate", "a", "--model", folder, *DRAW, "--solver", solver, "--out", "a.png")
    assert result.exit_code == 0
    assert (words in result.stderr) if words else result.stderr == ""


def test_a_picture_of_another_program_is_drawn(sana: Sana, tmp_path: Path):
    info = PngImagePlugin.PngInfo()
    info.add_text(
        "parameters",
        "Negative prompt: fog\x1b]0;x\x07\nSteps: 2, Sampler: Euler, CFG scale: 7, Seed: 3, Size: 70x64, "
        "Model hash: 1, Model: sd15\x1b[2J, Version: v1.6.0",
    )
    Image.new("RGB", (8, 8)).save(tmp_path / "foreign.png", pnginfo=info)
    fixed = ("--model", sana.model, "--device", "cpu", "--dtype", "fp32")
    result = sana("generate", "--like", "foreign.png", *fixed, "--out", "a.png")
    assert result.exit_code == 0, result.stderr
    assert "its sampler 'Euler' is read as euler" in result.stderr
    assert "is another program's" in result.stderr
    assert "\x1b" not in result.stderr + result.stdout
    request = read_picture(tmp_path / "a.png").request
    assert (request.prompt, request.solver, request.width, request.seed) == ("", "euler", 64, 3)
    shown = sana("inspect", "foreign.png")
    assert "\x1b" not in shown.stdout + shown.stderr
    assert "note: " in shown.stderr


ENCODED = {
    "utf-8": "a cube\na cône\n".encode(),
    "utf-8 with a mark": "\ufeffa cube\na cône\n".encode(),
    "utf-16": "a cube\na cône\n".encode("utf-16"),
    "utf-16-be": b"\xfe\xff" + "a cube\r\na cône".encode("utf-16-be"),
    "utf-32": "a cube\na cône\n".encode("utf-32"),
    "old Mac": b"a cube\ra c\xc3\xb4ne\r",
}


@pytest.mark.parametrize("name", ENCODED)
@pytest.mark.parametrize("stdin", [False, True])
def test_prompt_files_of_every_encoding(sana: Sana, tmp_path: Path, name: str, stdin: bool):
    (tmp_path / "prompts.txt").write_bytes(ENCODED[name])
    source = ("--prompt-file", "-" if stdin else "prompts.txt")
    fixed = ("--model", sana.model, "--json", "--show-prompt", "--no-chi", *DRAW)
    result = sana("generate", *source, *fixed, text=ENCODED[name] if stdin else None)  # type: ignore[arg-type]
    shown = [line["text"] for line in lines_of(result) if line["event"] == "prompt"]
    assert shown == ["a cube", "a cône"]


def test_only_line_breaks_part_prompts(sana: Sana, tmp_path: Path):
    (tmp_path / "prompts.txt").write_text("a\u2028b\x0bc\x0cd\x85e\n\nf\n", encoding="utf-8")
    result = sana.draw("--prompt-file", "prompts.txt", "--json")
    prompts = [line["request"]["prompt"] for line in lines_of(result) if line["event"] == "picture"]
    assert prompts == ["a\u2028b\x0bc\x0cd\x85e", "f"]


def test_the_longest_names_that_a_folder_takes(sana: Sana, tmp_path: Path):
    name = "x" * 251 + ".png"
    assert sana.draw("a cube", "--out", name).exit_code == 0
    assert pictures_in(tmp_path) == [name]


def test_convert_ignores_fields_too(sana: Sana, model: Path, tmp_path: Path):
    path = model / "transformer/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"brand_new": 3}))
    for source in (model, model / "transformer"):
        target = tmp_path / f"{source.name}.pth"
        assert "brand_new" in sana("convert", source, target).stderr
        result = sana("convert", source, target, "--ignore-config-fields", "brand_new")
        assert result.exit_code == 0, result.stderr
        assert "brand_new was ignored as asked" in result.stderr
    refused = sana("convert", tmp_path / "model.pth", tmp_path / "f", "--ignore-config-fields", "brand_new")
    assert refused.exit_code == 2
    assert "the source is a file" in refused.stderr


def test_angles_of_sprint_are_heard_recorded_and_heard_again(sana: Sana, tiny: Folders, tmp_path: Path):
    model = ("--model", tiny(Recipe(sprint=True)), "--size", "64x64", "--device", "cpu", "--dtype", "fp32")

    def draw(name: str, *options: object) -> bytes:
        result = sana("generate", *options, "--out", name)
        assert result.exit_code == 0, result.stderr
        return pixels(tmp_path / name)

    usual = draw("usual.png", "a", *model, "--steps", 4)
    given = draw("given.png", "a", *model, "--angles", "1.5708,1.3,1.1,0.6")
    other = draw("other.png", "a", *model, "--angles", "1.5708,1.0")
    assert usual == given != other
    assert read_picture(tmp_path / "other.png").request.angles == (1.5708, 1.0)
    assert draw("like.png", "--like", "other.png") == other
    assert draw("more.png", "--like", "other.png", "--steps", 4) == usual
    assert draw("less.png", "--like", "usual.png", "--angles", "1.5708,1.0") == other
    refused = sana("generate", "a", *model, "--steps", 4, "--angles", "1.5708,1.0")
    assert (refused.exit_code, "angles gives 2 steps and steps asks for 4" in refused.stderr) == (2, True)
