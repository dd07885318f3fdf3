"""Models that `transformers` loads, at toy size: what they are asked, what they say, and what can't be loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from sanakit.base.errors import ConfigError, ModelNotFoundError
from sanakit.base.precision import decide
from sanakit.data.labels.models import LabelModel, load_captioner, load_scorer
from sanakit.data.labels.vision import INSTRUCTION, vision_captioner, vision_scorer
from tests.data.labels import tiny_models

CPU = decide("cpu", "fp32")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for name in ("clip", "siglip", "llava", "blip"):
        getattr(tiny_models, f"write_{name}")(folder / name)
    return folder


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (3, 40, 56, 3), generator=generator, dtype=torch.uint8)
    return [Image.fromarray(one.numpy()) for one in noise] + [Image.new("RGB", (33, 90), "red")]


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_scores_are_cosines_of_the_model(models: Path, pictures: list[Image.Image], name: str) -> None:
    from transformers import AutoModel, AutoProcessor

    captions = [["a red sphere", "three cones on sand"], [], ["a red sphere"], ["a cone " * 30]]
    found = vision_scorer(models / name, CPU)(pictures, captions)
    assert [len(row) for row in found] == [2, 0, 1, 1]
    model, processor = AutoModel.from_pretrained(models / name), AutoProcessor.from_pretrained(models / name)
    padding = {"padding": "max_length", "max_length": 12} if name == "siglip" else {}
    batch = processor(text=["a red sphere"], images=[pictures[2]], return_tensors="pt", **padding)
    with torch.no_grad():
        output = model(**batch)
    cosine = torch.nn.functional.cosine_similarity(output.image_embeds, output.text_embeds)
    assert found[2] == pytest.approx([100 * cosine.item()], abs=1e-3)
    assert all(-100.001 <= score <= 100.001 for row in found for score in row)
    assert vision_scorer(models / name, CPU)(pictures[:1], [[]]) == [[]]


def test_a_captioner_answers_for_each_picture_alone(models: Path, pictures: list[Image.Image]) -> None:
    captioner = vision_captioner(models / "llava", CPU, max_tokens=6)
    together = captioner(pictures)
    assert together == [captioner([picture])[0] for picture in pictures]
    assert len(set(together)) > 1
    assert not any(INSTRUCTION[:8].lower() in text.lower() for text in together)


def test_the_instruction_is_what_the_model_is_asked(models: Path, pictures: list[Image.Image]) -> None:
    said = [
        vision_captioner(models / "llava", CPU, instruction=asked, max_tokens=8)(pictures)
        for asked in (None, INSTRUCTION, "count")
    ]
    assert said[0] == said[1] != said[2]


def test_a_captioner_without_a_chat(models: Path, pictures: list[Image.Image]) -> None:
    captioner = vision_captioner(models / "blip", CPU, max_tokens=5)
    assert captioner(pictures) == [captioner([picture])[0] for picture in pictures]


def test_what_is_no_such_model(models: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't be loaded"):
        vision_captioner(models / "clip", CPU)
    with pytest.raises(ConfigError, match="does not compare pictures with texts"):
        vision_scorer(models / "llava", CPU)
    with pytest.raises(ModelNotFoundError, match="holds no config.json"):
        load_scorer(LabelModel(task="score", name=str(tmp_path)))
    with pytest.raises(ModelNotFoundError, match="isn't a folder or a hub id"):
        load_scorer(LabelModel(task="score", name="clip"))
    with pytest.raises(ModelNotFoundError, match="hub is offline"):
        load_captioner(LabelModel(task="caption", name="someone/vlm"))
    with pytest.raises(ConfigError, match="only scores"):
        load_captioner(LabelModel(task="caption", name="open_clip:ViT-B-32/openai"))
    with pytest.raises(ConfigError, match="1 token or more"):
        load_captioner(LabelModel(task="caption", name="toybox", max_tokens=0))
