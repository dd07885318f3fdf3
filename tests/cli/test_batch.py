"""`sanakit batch`: what it prints, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.running import lines_of, pictures_in

SMALL = ("--steps", 1, "--size", "64x64", "--device", "cpu", "--dtype", "fp32")


@pytest.fixture
def requests(tmp_path: Path) -> Path:
    file = tmp_path / "requests.jsonl"
    file.write_text('{"prompt": "a cube", "key": "cube"}\na cone\n')
    return file


def test_it_draws_what_is_missing_and_says_so(sana, requests):
    def batch(*options):
        return sana("batch", requests, "--model", sana.model, *SMALL, "--out", "pictures", *options)

    first = batch()
    assert first.exit_code == 0 and "pictures: 2 drawn, 0 there, 0 failed of 2" in first.stdout
    assert pictures_in(Path("pictures")) == ["000002.png", "cube.png"]
    with requests.open("a") as file:
        file.write('{"prompt": "a ball", "key": "ball"}\n')
    assert lines_of(batch("--json")) == [
        {"event": "item", "key": "ball", "path": "pictures/ball.png"},
        {"event": "done", "folder": "pictures", "drawn": 1, "there": 2, "failed": 0},
    ]


def test_what_fails_is_told_with_its_reason_and_ends_in_exit_code_1(sana, requests):
    requests.write_text("a cone\n" + "cube " * 400)
    result = sana("batch", requests, "--model", sana.model, *SMALL, "--out", "pictures")
    assert result.exit_code == 1
    assert "000002: the prompt is too long" in " ".join(result.stderr.split())
    assert json.loads(Path("pictures/failures.jsonl").read_text())["key"] == "000002"
    assert pictures_in(Path("pictures")) == ["000001.png", "failures.jsonl"]


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (("--engine", "cloud"), "--engine is one of here, processes, ray"),
        (("--workers", 2), "--workers goes with --engine processes or ray"),
        (("--engine", "processes", "--gpus", 1), "--gpus goes with --engine ray"),
        (("--steps", 0), "steps must be a whole number"),
    ],
)
def test_options_that_do_not_go_together_are_refused(sana, requests, options, fault):
    result = sana("batch", requests, "--out", "pictures", *options)
    assert result.exit_code == 2 and fault in " ".join(result.stderr.split())
    assert not Path("pictures").exists()
