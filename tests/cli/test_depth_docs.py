"""The commands and the config of docs/depth.md, run as they stand, on a small model of as many blocks as Toybox has."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from sanakit.training import TrainConfig
from sanakit.training.schema import build
from sanakit.training.yaml_text import parse_yaml
from sanakit.weights import read_model_spec
from tests.cli.running import Sana
from tests.oracles.tiny import Folders, Recipe

PAGE = (Path(__file__).parents[2] / "docs/depth.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture
def model(tiny: Folders) -> str:
    return str(tiny(Recipe(depth=10, sample_size=2)))


def test_the_commands_of_the_page(sana: Sana, model: str) -> None:
    lines = [line for kind, block in BLOCKS for line in block.splitlines() if not kind and line]
    commands = [shlex.split(line, comments=True) for line in lines if line.startswith("sanakit")]
    assert {arguments[1] for arguments in commands} == {"grow", "importance", "prune"}
    for _, *arguments in commands:
        result = sana(*(model if word == "toybox" else word for word in arguments))
        assert result.exit_code == 0, (arguments, result.stderr)
    assert read_model_spec(Path("out/deep")).transformer.depth == 14
    assert read_model_spec(Path("out/small")).transformer.depth == 8


def test_the_config_of_the_page_is_one() -> None:
    [text] = [block for kind, block in BLOCKS if kind == "yaml"]
    rest = {"folder": "run", "batch": 4, "phases": [{"steps": 2, "size": 64}], "data": {"path": "pictures"}}
    made = build(TrainConfig, rest | parse_yaml(text, "docs/depth.md"))
    assert (made.model.start, made.model.changes, made.optimizer.name) == ("grow", {"depth": 14}, "came-8bit")
