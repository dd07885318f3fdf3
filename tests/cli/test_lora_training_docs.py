"""The part of docs/lora.md on training, run as it stands, on a small model and few steps."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from sanakit.training.yaml_text import library
from tests.cli.running import Sana
from tests.oracles.tiny import Folders, Recipe

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/lora.md").read_text(encoding="utf-8").partition("\n## Training")[2]


def shortened(path: Path, model: str) -> None:
    """Make a config's run one of two steps of a small model."""
    yaml = library("yaml")
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert config["task"] == "lora" and config["base"] == "toybox"
    config |= {"base": model, "phases": [{"steps": 2, "size": 64}], "dtype": "fp32"}
    config["preview"]["every"] = 0
    config["lora"]["rank"] = 2
    path.write_text(yaml.safe_dump(config), encoding="utf-8")


def test_the_walk_through_runs(sana: Sana, tiny: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    model = str(tiny(Recipe(sample_size=2)))
    Path("data").mkdir()
    Image.radial_gradient("L").convert("RGB").resize((451, 300)).save("data/chelsea.png")
    skimage = ModuleType("skimage")
    skimage.__file__ = str(Path("__init__.py").absolute())
    monkeypatch.setitem(sys.modules, "skimage", skimage)
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    (python,) = (block for kind, block in blocks if kind == "python")
    exec(compile(python, "docs/lora.md", "exec"), {})
    assert len(list(Path("out/cat").glob("*.png"))) == 8
    Path("examples").mkdir()
    Path("examples/lora.yaml").write_bytes((ROOT / "examples/lora.yaml").read_bytes())
    shortened(Path("examples/lora.yaml"), model)
    commands = [
        line
        for kind, block in blocks
        if not kind
        for line in block.splitlines()
        if line.startswith("sanakit ")
    ]
    assert len(commands) == 8
    for line in commands:
        _, *arguments = shlex.split(line, comments=True)
        if arguments[0] == "generate":
            arguments += ["--steps", "1", "--model", model]
        result = sana(*arguments)
        assert result.exit_code == 0, (line, result.stderr)
        if "--new" in arguments:
            shortened(Path("cat.yaml"), model)
    assert Path("runs/cat/lora/pytorch_lora_weights.safetensors").is_file()
    assert Path("before.png").read_bytes() != Path("after.png").read_bytes()
