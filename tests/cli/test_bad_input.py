"""Bad input: one clear sentence on stderr, exit code 2, and nothing on disk changes."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.cli.running import Sana

DRAW = {
    "a size that is no multiple of 32": (["a", "--size", "100x64"], "multiple of 32"),
    "a size that is none": (["a", "--size", "big"], "512x768"),
    "a size of zero": (["a", "--size", "0x64"], "width"),
    "steps below 1": (["a", "--steps", "0"], "steps"),
    "a prompt that is too long": (["a cube " * 400, "--out", "old.png"], "tokens would be cut"),
    "no prompt": ([], "say what to draw"),
    "two sources of prompts": (["a", "--prompt-file", "prompts.txt"], "not both"),
    "a missing prompt file": (["--prompt-file", "absent.txt"], "absent.txt"),
    "an empty prompt file": (["--prompt-file", "empty.txt"], "no prompt"),
    "a prompt file that is no text": (["--prompt-file", "noise.bin"], "UTF-8"),
    "an unknown solver": (["a", "--solver", "ddim"], "ddim"),
    "a guidance that is no number": (["a", "--guidance", "nan"], "guidance"),
    "a guidance past all bounds": (["a", "--guidance", "1e308"], "guidance"),
    "an infinite guidance": (["a", "--guidance", "inf"], "guidance"),
    "a pag past all bounds": (["a", "--pag", "1e308"], "pag"),
    "an interval of nan": (["a", "--cfg-interval", "nan,1"], "cfg_interval"),
    "pag blocks that are none": (["a", "--pag-blocks", "x"], "8,14"),
    "pag blocks that are not there": (["a", "--pag", "1", "--pag-blocks", "7"], "no block 7"),
    "angles that are none": (["a", "--angles", "x"], "1.5708,1.3"),
    "angles that rise": (["a", "--angles", "0.5,1.5"], "must fall from at most 1.5708"),
    "angles for another solver": (["a", "--angles", "1.5,1"], "drawn by dpm2"),
    "a variant that is not there": (["a", "--variant", "fp16"], "no variant 'fp16'"),
    "a variant that is no word": (["a", "--variant", "../x"], "such as fp16"),
    "ignored fields that are none": (["a", "--ignore-config-fields", ","], "names with commas"),
    "ignored fields that are not there": (["a", "--ignore-config-fields", "nix"], "no configuration file"),
    "a model without a name": (["a", "--model", ""], "no model ''"),
    "a model with too long a name": (["a", "--model", "x" * 5000], "no model 'xxx"),
    "a hub id with too long a name": (["a", "--model", "x/" + "y" * 5000], "no model 'x/yyy"),
    "a model of nobody": (["a", "--model", "~nosuchuser/m"], "~nosuchuser/m"),
    "a folder with too long a name": (["a", "--out", "x" * 5000], "name too long"),
    "a file with too long a name": (["a", "--out", "x" * 5000 + ".png"], "name too long"),
    "a picture with too long a name": (["--like", "x" * 5000], "no picture"),
    "a prompt file with too long a name": (["--prompt-file", "x" * 5000], "name too long"),
    "a prompt file with zero bytes": (["--prompt-file", "zeros.txt"], "zero bytes"),
    "a solver of a megabyte": (["a", "--solver", "x" * 10**6], "unknown solver"),
    "a size of a megabyte": (["a", "--size", "9" * 10**6], "512x768"),
    "a negative seed": (["a", "--seed", "-1"], "seed"),
    "a seed past the largest": (["a", "--seed", str(2**63)], "seed"),
    "a count below 1": (["a", "--count", "0"], "count"),
    "a bad interval": (["a", "--cfg-interval", "0.9,0.1"], "low first"),
    "an interval that is none": (["a", "--cfg-interval", "x"], "0.1,0.9"),
    "an unknown dtype": (["a", "--dtype", "int7"], "int7"),
    "an unknown device": (["a", "--device", "warp"], "warp"),
    "a device that is not here": (["a", "--device", "cuda:7"], "cuda:7"),
    "an unknown model": (["a", "--model", "no-such-model"], "no-such-model"),
    "a hub model while offline": (["a", "--model", "nobody/nothing"], "nobody/nothing"),
    "a folder that is no model": (["a", "--model", "."], "model_index.json"),
    "one file for two pictures": (["a", "--count", "2", "--out", "old.png"], "one file"),
    "a format other than PNG": (["a", "--out", "a.jpg"], "a.png"),
    "a place below a file": (["a", "--out", "old.png/sub"], "old.png"),
    "a picture without a request": (["--like", "plain.png"], "no request"),
    "a picture that is none": (["--like", "prompts.txt"], "PNG"),
    "a missing picture": (["--like", "absent.png"], "absent.png"),
}


@pytest.fixture(autouse=True)
def _files(sana: Sana, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a cube\n")
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "noise.bin").write_bytes(b"\xff\xfa\xfe")
    (tmp_path / "zeros.txt").write_bytes("a cube\n".encode("utf-16-le"))
    (tmp_path / "old.png").write_bytes(b"old")
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")


def _all_bytes(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _refused(result, words: str) -> None:
    assert result.exit_code == 2, (result.stdout, result.stderr, result.exception)
    assert result.stdout == ""
    assert result.stderr.startswith("sanakit: ")
    assert result.stderr.count("\n") == 1
    assert result.stderr.endswith((".\n", "?\n"))
    assert words.lower() in result.stderr.lower()
    assert len(result.stderr) < 1000


@pytest.mark.parametrize("name", DRAW)
def test_generate_refuses(sana: Sana, tmp_path: Path, name: str):
    arguments, words = DRAW[name]
    before = _all_bytes(tmp_path)
    _refused(sana.draw(*arguments), words)
    assert _all_bytes(tmp_path) == before


def test_an_unwritable_folder(sana: Sana, tmp_path: Path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    if os.access(locked, os.W_OK):  # root writes everywhere but into what the kernel shows
        locked = Path("/proc/locked")
    _refused(sana.draw("a", "--out", locked), "locked")


def _edit_json(path: str, **changes: object) -> Callable[[Path], None]:
    def edit(model: Path) -> None:
        data = json.loads((model / path).read_text())
        (model / path).write_text(json.dumps(data | changes))

    return edit


def _cut(path: str, keep: int) -> Callable[[Path], None]:
    return lambda model: (model / path).write_bytes((model / path).read_bytes()[:keep])


WEIGHTS = "diffusion_pytorch_model.safetensors"
DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing weights": (lambda model: (model / "transformer" / WEIGHTS).unlink(), "transformer"),
    "missing text encoder": (
        lambda model: (model / "text_encoder/model.safetensors").unlink(),
        "text_encoder",
    ),
    "truncated weights": (_cut(f"transformer/{WEIGHTS}", 2000), "transformer"),
    "truncated header": (_cut(f"vae/{WEIGHTS}", 5), "vae"),
    "weights of another depth": (_edit_json("transformer/config.json", num_layers=3), "transformer"),
    "an unknown field": (_edit_json("transformer/config.json", number_of_layers=2), "number_of_layers"),
    "contradictory channels": (
        _edit_json("transformer/config.json", in_channels=4, out_channels=4),
        "channels",
    ),
    "no width of the text encoder": (_edit_json("text_encoder/config.json", hidden_size=None), "hidden_size"),
    "no layers of the text encoder": (
        _edit_json("text_encoder/config.json", num_hidden_layers="x"),
        "num_hidden",
    ),
    "a feed-forward of nothing": (_edit_json("transformer/config.json", mlp_ratio=1e-9), "mlp_ratio"),
    "contradictory text width": (_edit_json("text_encoder/config.json", hidden_size=24), "24"),
    "an unknown pipeline": (_edit_json("model_index.json", _class_name="FluxPipeline"), "FluxPipeline"),
    "an unknown scheduler": (_edit_json("scheduler/scheduler_config.json", _class_name="DDIM"), "DDIM"),
    "no tokenizer": (lambda model: shutil.rmtree(model / "tokenizer"), "tokenizer"),
    "a config that is no JSON": (_cut("vae/config.json", 20), "JSON"),
}


@pytest.mark.parametrize("name", [name for name in DAMAGE if "text encoder" in name or "feed" in name])
def test_doctor_refuses_damaged_configurations(sana: Sana, tmp_path: Path, name: str):
    damage, words = DAMAGE[name]
    model = tmp_path / "model"
    shutil.copytree(sana.model, model)
    damage(model)
    if "missing" not in name:  # doctor opens no weights
        _refused(sana("doctor", "--model", model), words)


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_models_are_refused(sana: Sana, tmp_path: Path, name: str):
    damage, words = DAMAGE[name]
    model = tmp_path / "model"
    shutil.copytree(sana.model, model)
    damage(model)
    before = _all_bytes(tmp_path)
    result = sana(
        "generate", "a", "--model", model, "--size", "64x64", "--steps", 1, "--out", tmp_path / "old.png"
    )
    _refused(result, words)
    assert _all_bytes(tmp_path) == before


class _Code:
    def __reduce__(self) -> tuple:
        return (os.mkdir, ("was-run",))


def test_a_pth_with_code_in_it_is_refused(sana: Sana, tmp_path: Path):
    with open(tmp_path / "evil.pth", "wb") as file:
        pickle.dump({"state_dict": _Code()}, file)
    torch.save({"state_dict": _Code()}, tmp_path / "evil2.pth")
    for name in ("evil.pth", "evil2.pth"):
        _refused(sana("convert", name, "folder"), name)
    assert not (tmp_path / "was-run").exists()
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["convert", "absent.pth", "folder"], "absent.pth"),
        (["convert", "old.png", "a.pth"], "old.png"),
        (["convert", "a.pth", "b.pth"], "folder"),
        (["convert", ".", "folder"], ".pth"),
        (["convert", "a.pth", "b", "--dtype", "x"], "dtype"),
        (["convert", "a.pth", "b", "--image-size", "100"], "image-size"),
        (["inspect", "plain.png"], "no request"),
        (["inspect", "absent.png"], "absent.png"),
        (["doctor", "--model", "no-such-model"], "no-such-model"),
        (["doctor", "--size", "10x10", "--model", "sana-0.6b-512"], "width"),
        (["doctor", "--dtype", "x"], "dtype"),
        (["data", "check", "~nosuchuser/set"], ""),
        (["data", "check", "x" * 5000], "xxx"),
        (["evaluate", "toybox", "--prompts", "1" + "0" * 12], "at most 100000"),
        (["evaluate", "toybox", "--seed", "-1"], "seed"),
        (["evaluate", "toybox", "--model", ""], "no model ''"),
        (["data", "toybox", "f", "--size", "1000000000"], "at most 8192"),
        (["data", "toybox", "f", "--workers", "0"], "at least 1"),
        (["doctor", "--model", ""], "no model ''"),
        (["doctor", "--ignore-config-fields", "nix"], "no configuration file"),
        (["inspect", "x" * 5000], "no picture"),
    ],
    ids=str,
)
def test_other_commands_refuse(sana: Sana, arguments: list[str], words: str):
    _refused(sana(*arguments), words)


@pytest.mark.parametrize(
    "arguments", [["generate", "a", "--steps", "many"], ["generate", "a", "--what"], ["draw"]]
)
def test_what_cannot_be_parsed_ends_with_2(sana: Sana, arguments: list[str]):
    result = sana(*arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.stderr
