"""The examples of docs/python.md run, in their order."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sanakit.pipeline import loading
from tests.oracles.tiny import Folders, Recipe

PAGE = Path(__file__).parents[2] / "docs" / "python.md"


def test_the_python_page_runs(tiny: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loading, "resolve", lambda name, announce: tiny(Recipe(sample_size=4)))
    names: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 7
    for number, block in enumerate(blocks):
        exec(compile(block, f"{PAGE}:{number}", "exec"), names)
    assert set(names["seconds"]) == {"denoise", "decode", "text"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cones.png", "cube.png"]
    assert names["pixels"].shape == (1, 3, 128, 128)
