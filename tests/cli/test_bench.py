"""`sanakit bench`: rows in a file, a plot, and bad input."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from sanakit.benchmark import Machine
from tests.cli.running import Sana

MACHINE = Machine(products={"float32": 1e11, "bfloat16": 1e12, "int8": 4e12}, copy=2e10, name="2 threads")


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sanakit.benchmark.measure_machine", lambda device: MACHINE)


def test_rows_and_plot_are_written(sana: Sana, tmp_path: Path) -> None:
    rows, plot = tmp_path / "new" / "rows.json", tmp_path / "plot.png"
    result = sana(
        "bench", "--model", "toybox", "--size", "64x64", "--stages", "step,decode", "--rounds", "1", "--dtype", "fp32",
        "--engines", "sanakit,diffusers", "--json", str(rows), "--plot", str(plot),
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    data = json.loads(rows.read_text())
    assert [(row["stage"], row["engine"]) for row in data["rows"]] == [
        ("step", "sanakit"), ("step", "diffusers"), ("decode", "sanakit"), ("decode", "diffusers"),
    ]  # fmt: skip
    assert {row["size"] for row in data["rows"]} == {"64x64"}
    assert data["machine"]["products"]["bfloat16"] == 1e12
    with Image.open(plot) as picture:
        assert picture.size[0] > 300
    assert "step: against sanakit: diffusers" in result.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--stages", "warp"], "there is no stage 'warp' to time: choose from text, step, decode."),
        (["--stages", ","], "name at least one stage"),
        (["--engines", "warp"], "there is no engine 'warp'"),
        (["--size", "100x100"], "multiple"),
        (["--model", "no-such-model"], "no model 'no-such-model'"),
        (["--decoders", "warp"], "there is no decoder 'warp' to time: choose from lite, full."),
        (["--rounds", "0"], "rounds"),
        (["--minutes", "0"], "minutes must be more than 0"),
        (["--minutes", "nan"], "minutes must be more than 0"),
    ],
)
def test_bad_input_is_one_sentence(sana: Sana, options: list[str], words: str) -> None:
    result = sana("bench", "--model", "toybox", *options)
    assert result.exit_code == 2
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_the_chip_and_who_was_left_out_are_told(
    sana: Sana, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = replace(MACHINE, name="AMD EPYC", cores=2, threads=2, instructions=("AVX2",))
    monkeypatch.setattr("sanakit.benchmark.measure_machine", lambda device: described)
    rows = tmp_path / "rows.json"
    result = sana(
        "bench", "--model", "toybox", "--size", "64x64", "--stages", "step", "--rounds", "1", "--dtype", "fp32",
        "--engines", "sanakit,sanakit-graphs", "--json", str(rows),
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[0] == "AMD EPYC, 2 cores, 2 threads, AVX2"
    assert (
        "step: sanakit-graphs is left out: graphs was asked for, but it records CUDA graphs" in result.stdout
    )
    data = json.loads(rows.read_text())
    assert data["machine"]["chip"] == "AMD EPYC" and data["machine"]["instructions"] == ["AVX2"]
    assert [one["engine"] for one in data["left_out"]] == ["sanakit-graphs"]


def test_where_nobody_can_be_timed_it_says_so(sana: Sana) -> None:
    result = sana("bench", "--model", "toybox", "--engines", "sanakit-graphs", "--stages", "step")
    assert result.exit_code == 2
    assert "nothing was timed: every engine was left out" in result.stderr
