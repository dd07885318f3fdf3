"""The commands and the Python of docs/lora.md, run as they stand, on LoRAs with random weights."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch

from sanakit.adapt.lora import adaptable, find_layers, layer_size, matrices
from sanakit.layers.lora import LowRank
from sanakit.transformer import SanaTransformer
from sanakit.weights import LoRA, read_model_spec, write_lora
from tests.cli.running import Sana
from tests.oracles.tiny import Folders, Recipe

PAGE = (Path(__file__).parents[2] / "docs/lora.md").read_text(encoding="utf-8").partition("\n## Training")[0]


@pytest.fixture
def model(sana: Sana, tiny: Folders) -> str:
    """A small model in the place of Toybox, and two LoRAs for it under the names that the page uses."""
    folder = tiny(Recipe(sample_size=2))
    with torch.device("meta"):
        network = SanaTransformer(read_model_spec(folder).transformer)
    layers = adaptable(network)
    for name in ("toon", "torus"):
        lows = {}
        for layer in find_layers(network, ["attention", "cross"]):
            (outputs, inputs), of = layer_size(layers[layer]), matrices(layer)
            down, up = torch.randn(of, 2, inputs), torch.randn(of, outputs // of, 2) * 0.01
            lows[layer] = LowRank(down=down, up=up, groups=tuple(range(of)), of=of)
        write_lora(Path(f"{name}.safetensors"), LoRA(layers=lows))
    return str(folder)


def test_the_commands_and_the_python_of_the_page(sana: Sana, model: str) -> None:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    commands = [line for kind, block in blocks for line in block.splitlines() if not kind and line]
    assert len(commands) >= 8
    for line in commands:
        program, *arguments = (model if word == "toybox" else word for word in shlex.split(line))
        assert program == "sanakit"
        if arguments[0] == "generate":
            arguments += ["--steps", "1"] + ([] if "--model" in arguments else ["--model", model])
        result = sana(*arguments)
        assert result.exit_code == 0, (line, result.stderr)
    for block in (block for kind, block in blocks if kind == "python"):
        exec(compile(block.replace("toybox", model), "docs/lora.md", "exec"), {})
    assert Path("toon-diffusers/pytorch_lora_weights.safetensors").is_file()
