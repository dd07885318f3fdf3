"""The other commands, the bars, and the command line as a process."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from sanakit import __version__
from sanakit.cli.progress import ProgressBar
from sanakit.pipeline import load, read_picture
from sanakit.toybox.grammar import DRAWS
from tests.cli.running import Sana, hear_interrupts, lines_of
from tests.oracles import chips
from tests.oracles.tiny import Folders, Recipe
from tests.pipeline.drawing import open_model

ROOT = Path(__file__).parents[2]
SOURCE = str(ROOT / "src")


def _start(*arguments: str, code: str | None = None, **options) -> subprocess.Popen:
    command = [sys.executable, *(["-c", code] if code else ["-m", "sanakit.cli"]), *arguments]
    environment = os.environ | {"PYTHONPATH": SOURCE}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, preexec_fn=hear_interrupts, **pipes, **options)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["generate", "--help"], ["version"], ["generate", "--steps", "x"]]
)
def test_help_needs_no_torch(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    code = (
        "import sys\nfrom sanakit.cli import app\n"
        "try:\n    app()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'PIL', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    began = time.perf_counter()
    process = _start(*arguments, code=code)
    _, err = process.communicate()
    with capsys.disabled():
        print(f"[{' '.join(arguments)}: {time.perf_counter() - began:.2f} s] ", end="")
    assert process.returncode == 0, err


def test_a_newcomer_reads_what_the_shipped_model_draws(sana: Sana):
    for text in (sana("generate", "--help").stdout, (ROOT / "README.md").read_text(encoding="utf-8")):
        assert f"Toybox, draws {DRAWS}" in " ".join(text.split())


def test_help_names_every_option(sana: Sana):
    shown = sana("generate", "--help").stdout
    for option in (
        "--model", "--negative", "--steps", "--guidance", "--seed", "--size", "--count", "--grid", "--solver",
        "--dtype", "--device", "--out", "--prompt-file", "--no-chi", "--show-prompt", "--like", "--json",
        "--cfg-interval", "--pag", "--debug", "--variant", "--pag-blocks", "--no-bins", "--ignore-config-fie",
    ):  # fmt: skip
        assert option in shown


def test_version(sana: Sana):
    assert sana("version").stdout == sana("--version").stdout == f"sanakit {__version__}\n"


def test_ctrl_c_as_a_user_presses_it(tiny: Folders, tmp_path: Path):
    process = _start(
        "generate", "a cube", "--model", str(tiny()), "--size", "64x64", "--count", "10000", "--steps", "2",
        "--device", "cpu", "--dtype", "fp32", "--json", cwd=tmp_path,
    )  # fmt: skip
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.startswith("sanakit: interrupted, ") and err.count("\n") == 1
    assert (tmp_path / first["path"]).exists()
    for path in (tmp_path / "out").iterdir():
        assert path.suffix == ".png" and not path.name.startswith(".")
        assert read_picture(path).request.prompt == "a cube"


def test_bad_input_as_a_process(tmp_path: Path):
    process = _start("generate", "a", "--steps", "0", cwd=tmp_path)
    out, err = process.communicate()
    assert (process.returncode, out) == (2, "")
    assert err == "sanakit: steps must be a whole number from 1 to 1000, not 0.\n"
    assert not list(tmp_path.iterdir())


def test_a_reader_that_goes_away(tiny: Folders, tmp_path: Path):
    process = _start(
        "generate", "a cube", "--model", str(tiny()), "--size", "64x64", "--count", "10000", "--steps", "1",
        "--device", "cpu", "--dtype", "fp32", cwd=tmp_path,
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=60) == 1
    assert process.stderr.read() == ""
    process.stderr.close()


@pytest.mark.parametrize("recipe", [Recipe(width=1152, heads=36, cross_heads=16, depth=1)], ids=["0.6b"])
def test_convert_there_and_back(sana: Sana, tiny: Folders, tmp_path: Path, recipe: Recipe):
    folder = tiny(recipe)
    result = sana("convert", folder, "a.pth")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "a.pth  (depth 1, width 1152)\n"
    assert set(torch.load("a.pth", weights_only=True)) == {"state_dict"}
    (told,) = lines_of(sana("convert", "a.pth", "back", "--json"))
    assert told == {"path": "back", "depth": 1, "width": 1152}
    name = "diffusion_pytorch_model.safetensors"
    before, after = load_file(folder / "transformer" / name), load_file(tmp_path / "back" / name)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_convert_to_int8_takes_a_name_and_writes_a_model_that_draws(sana: Sana):
    (told,) = lines_of(sana("convert", "toybox", "small", "--dtype", "int8", "--json"))
    assert (told["path"], told["int8"] >= 40, "head.out" in told["kept"]) == ("small", True, True)
    result = sana(
        "generate", "a red cube", "--model", "small", "--steps", "1", "--fast", "off", "--out", "a.png"
    )
    assert result.exit_code == 0, result.stderr
    again = sana("convert", "toybox", "small", "--dtype", "int8")
    assert (again.exit_code, "exists already" in again.stderr) == (2, True)
    ignored = sana("convert", "toybox", "other", "--dtype", "int8", "--cross-heads", "4")
    assert (ignored.exit_code, "are for a .pth" in ignored.stderr) == (2, True)
    missing = sana("convert", "toybox", "other", "--dtype", "int8", "--variant", "fp16")
    assert (missing.exit_code, "no variant 'fp16'" in missing.stderr) == (2, True)
    assert sana("convert", "toybox", "shards", "--dtype", "int8", "--shard-size", "5MB").exit_code == 0
    assert len(list(Path("shards/transformer").glob("int8-*.safetensors"))) > 1
    assert sana("generate", "a cube", "--model", "shards", "--steps", "1", "--out", "b.png").exit_code == 0
    wrong = sana("convert", "toybox", "small.pth", "--dtype", "int8")
    assert (wrong.exit_code, "diffusers folder" in wrong.stderr) == (2, True)


def test_a_pth_draws_with_the_parts_of_a_folder(sana: Sana, tiny: Folders, tmp_path: Path):
    folder = tiny(Recipe(width=1152, heads=36, cross_heads=16, depth=1))
    assert sana("convert", folder, "a.pth").exit_code == 0
    fixed = ("--size", "64x64", "--steps", 1, "--device", "cpu", "--dtype", "fp32")
    result = sana("generate", "a cube", "--model", "a.pth", "--parts", folder, "--out", "a.png", *fixed)
    assert result.exit_code == 0, result.stderr
    assert sana("generate", "--like", "a.png", "--out", "b.png").exit_code == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    refused = sana("generate", "a cube", "--model", "a.pth", *fixed)
    assert (refused.exit_code, "parts" in refused.stderr) == (2, True)


def test_convert_replaces_nothing_unless_forced(sana: Sana, tiny: Folders, tmp_path: Path):
    (tmp_path / "a.pth").write_bytes(b"old")
    result = sana("convert", tiny(), "a.pth")
    assert (result.exit_code, (tmp_path / "a.pth").read_bytes()) == (2, b"old")
    assert sana("convert", tiny(), "a.pth", "--force", "--dtype", "bf16").exit_code == 0
    state = torch.load("a.pth", weights_only=True)["state_dict"]
    assert {tensor.dtype for tensor in state.values()} == {torch.bfloat16}


def test_doctor_tells_what_was_decided_and_why(sana: Sana, tiny: Folders):
    result = sana("doctor", "--model", tiny(), "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    for words in (
        "torch ",
        "device ",
        "dtype ",
        "reason ",
        "cpu ",
        "int8 ",
        "linear_attention: reference",
        "available ",
    ):
        assert words in result.stdout
    (found,) = lines_of(sana("doctor", "--model", tiny(), "--size", "64x96", "--dtype", "fp32", "--json"))
    memory = found["memory"]
    assert (found["dtype"], memory["size"], memory["together"]) == ("float32", "64x96", True)
    model = open_model(tiny(), fast="off")
    counted = sum(p.numel() for p in model.parts.transformer.parameters())
    assert memory["stages"]["denoise"]["parameters"] == counted


def test_doctor_tells_what_was_measured_of_a_chip(
    sana: Sana, tiny: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A chip that has bf16 and is no faster by it, and whose int8 does not bear out what it says."""
    from sanakit.base import precision

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(precision, "_measured_gain", lambda: 0.8)
    with chips.on(monkeypatch, chips.VNNI):
        told = sana("doctor", "--model", tiny(), "--device", "cpu").stdout
    assert "an EPYC" in told
    assert "fp32, because products with the CPU's AVX512-BF16 take 1.25 of the time of fp32" in told
    assert str(tmp_path) in told
    assert "int8_matmul: onednn: refuses: multiplies signed activations by AMX alone" in told


def test_doctor_says_why_no_kernel_of_a_gpu_runs(sana: Sana, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from sanakit.kernels import gpu, tuning
    from sanakit.kernels.linear_attention import gpu as attention_gpu

    monkeypatch.setattr(gpu, "describe", lambda: "no Triton kernel runs, which needs a newer NVIDIA driver")
    table = tmp_path / "tuning.json"
    table.write_text("[", encoding="utf-8")
    monkeypatch.setattr(tuning, "USER", table)
    told = sana("doctor", "--model", "sana-1.6b-1024", "--device", "cpu", "--dtype", "fp32").stdout
    assert "gpu             no Triton kernel runs, which needs a newer NVIDIA driver" in told
    assert f"launches        the table of launch parameters {table} can't be read" in told
    assert "linear_attention: triton: refuses: runs on CUDA GPUs only" in told
    monkeypatch.setattr(attention_gpu, "WIDEST", 16)
    told = sana("doctor", "--model", "sana-1.6b-1024", "--device", "cpu", "--dtype", "fp32").stdout
    assert "holds heads of at most 16 values, and these have 32" in told


def test_doctor_estimates_published_models_without_having_them(sana: Sana):
    (found,) = lines_of(sana("doctor", "--model", "sana-1.6b-4k", "--dtype", "bf16", "--json"))
    assert found["memory"]["size"] == "4096x4096"
    assert found["memory"]["stages"]["denoise"]["parameters"] == 1_604_462_752


def test_bars_follow_the_events(tiny: Folders, tmp_path: Path):
    from sanakit.cli.outputs import Drawing, Report, Target
    from sanakit.pipeline import ImageRequest

    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    request = ImageRequest(prompt="a cube", width=64, height=64, steps=3, count=2)
    model = load(tiny(), "cpu", "fp32")
    with ProgressBar(console) as bar:
        drawing = Drawing(
            model=model, requests=[request], pictures=2, target=Target(folder=tmp_path), grid=False,
            report=Report(as_json=False, waiting=True), bar=bar,
        )  # fmt: skip
        drawing.run([_refreshing(bar, model.generate(request))])
    shown = screen.getvalue()
    for words in ("pictures", "loading", "reading the prompt", "drawing", "developing", "3/3", "2/2", "left"):
        assert words in shown


def _refreshing(bar: ProgressBar, events):
    for event in events:
        yield event
        bar._live.refresh()
