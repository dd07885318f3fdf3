"""`sanakit data toybox`: every option reaches what renders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sanakit.cli import app
from sanakit.toybox import folder


def test_every_option_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: dict[str, Any] = {}

    def write(out: Path, count: int, **options: Any) -> Iterator[int]:
        heard.update(options, out=out, count=count)
        yield count

    monkeypatch.setattr(folder, "write_pictures", write)
    options = [
        "--count",
        "3",
        "--size",
        "64",
        "--split",
        "held_out",
        "--captions",
        "4",
        "--seed",
        "5",
        "--workers",
        "1",
        "--compiled",
    ]
    result = CliRunner().invoke(app, ["data", "toybox", str(tmp_path), *options])
    assert result.exit_code == 0, result.output
    assert heard == {
        "out": tmp_path, "count": 3, "size": 64, "split": "held_out", "captions": 4, "seed": 5, "workers": 1,
        "compiled": True,
    }  # fmt: skip
