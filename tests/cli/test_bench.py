"""`sanakit bench`: rows in a file, a plot, and bad input."""

from __future__ import annotations

import json
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
        (["--rounds", "0"], "rounds"),
    ],
)
def test_bad_input_is_one_sentence(sana: Sana, options: list[str], words: str) -> None:
    result = sana("bench", "--model", "toybox", *options)
    assert result.exit_code == 2
    assert words in result.stderr
    assert "Traceback" not in result.stderr
