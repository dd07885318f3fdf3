"""`--lora`, `--like` with LoRAs, `convert` of LoRAs and with LoRAs, `inspect` of a LoRA."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sanakit.layers.lora import LowRank
from sanakit.weights import LoRA, read_lora, write_lora
from tests.cli.running import Sana, lines_of


@pytest.fixture
def lora(sana: Sana) -> Path:
    """A LoRA for the tiny model, in the folder of the command."""
    torch.manual_seed(1)
    lows = {
        "blocks.0.attention.qkv": LowRank(
            down=torch.randn(3, 2, 16), up=torch.randn(3, 16, 2), groups=(0, 1, 2), of=3
        ),
        "blocks.1.cross.q": LowRank(down=torch.randn(1, 2, 16), up=torch.randn(1, 16, 2), scale=0.5),
    }
    write_lora(Path("style.safetensors"), LoRA(layers=lows))
    return Path("style.safetensors")


def pixels(path: str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).copy()


def test_a_picture_with_a_lora_again_by_its_record(sana: Sana, lora: Path) -> None:
    lines_of(sana.draw("a cube", "--lora", f"{lora}:0.8:blocks=0", "--out", "one.png", "--json"))
    lines_of(sana.draw("a cube", "--out", "plain.png", "--json"))
    assert not np.array_equal(pixels("one.png"), pixels("plain.png"))
    record = lines_of(sana("inspect", "one.png", "--json"))[0]["request"]["loras"]
    assert [(one["name"], one["weight"], one["blocks"]) for one in record] == [
        ("style.safetensors", 0.8, [[0, 0, 1.0]])
    ]
    missing = sana("generate", "--like", "one.png", "--out", "two.png")
    assert missing.exit_code == 2
    assert "was made with the file 'style.safetensors'" in missing.stderr
    assert "give that file as --lora" in missing.stderr
    again = sana("generate", "--like", "one.png", "--lora", lora, "--out", "two.png")
    assert again.exit_code == 0, again.stderr
    assert np.array_equal(pixels("one.png"), pixels("two.png"))
    found = read_lora(lora)
    write_lora(lora, LoRA(layers={name: low.scaled(2.0) for name, low in found.layers.items()}))
    changed = sana("generate", "--like", "one.png", "--lora", lora, "--out", "three.png")
    assert changed.exit_code == 0, changed.stderr
    assert "is another file: it will differ" in " ".join(changed.stderr.split())


def test_a_lora_merged_into_a_folder(sana: Sana, lora: Path) -> None:
    assert sana("convert", sana.model, "merged", "--lora", f"{lora}:0.5").exit_code == 0
    lines_of(sana.draw("a cube", "--lora", f"{lora}:0.5", "--out", "one.png", "--json"))
    lines_of(sana.draw("a cube", "--model", "merged", "--out", "two.png", "--json"))
    assert np.array_equal(pixels("one.png"), pixels("two.png"))
    for wrong, words in (
        (("x.pth", "--lora", lora), "is named like a file"),
        (("x", "--lora", lora, "--dtype", "int8"), "are two steps"),
        (("merged", "--lora", lora), "merged"),
        (("x", "--lora", "absent"), "no LoRA 'absent'"),
    ):
        result = sana("convert", sana.model, *wrong)
        assert result.exit_code == 2
        assert words in " ".join(result.stderr.split())


def test_a_lora_for_another_program_and_back(sana: Sana, lora: Path) -> None:
    assert sana("convert", lora, "comfy.safetensors", "--to", "comfyui").exit_code == 0
    assert lines_of(sana("inspect", "comfy.safetensors", "--json"))[0]["names"] == "ComfyUI"
    assert sana("convert", "comfy.safetensors", "back", "--to", "diffusers", "--json").exit_code == 0
    wanted, found = read_lora(lora).layers, read_lora(Path("back/pytorch_lora_weights.safetensors")).layers
    assert all(
        torch.equal(found[name].up, low.up) and found[name].scale == low.scale for name, low in wanted.items()
    )
    for wrong, words in (
        (("x.bin", "--to", "diffusers"), "written as safetensors"),
        (("x", "--to", "kohya"), "--to is diffusers or comfyui"),
        (("back", "--to", "diffusers"), "back"),
        (("x", "--to", "diffusers", "--parts", "toybox"), "not for a LoRA"),
    ):
        result = sana("convert", lora, *wrong)
        assert result.exit_code == 2
        assert words in " ".join(result.stderr.split())


def test_what_a_lora_says_of_itself(sana: Sana, lora: Path) -> None:
    shown = sana("inspect", lora)
    assert shown.exit_code == 0, shown.stderr
    assert "changed:      attention.qkv,cross.q" in shown.stdout
    assert json.loads(sana("inspect", lora, "--json").stdout) == {
        "names": "diffusers", "base": None,
        "layers": 2, "ranks": [2], "scales": [0.5, 1.0], "width": None, "magnitudes": False,
        "changed": ["attention.qkv", "cross.q"], "blocks": [0, 1],
    }  # fmt: skip
    Path("broken.safetensors").write_bytes(lora.read_bytes()[:-4])
    broken = sana("inspect", "broken.safetensors")
    assert (broken.exit_code, len(broken.stderr.splitlines())) == (2, 1)
